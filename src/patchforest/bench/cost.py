"""A cost model for the multi-GPU columns of APF's table II: arithmetic from stated assumptions, not a measurement.

t = encoder FLOP / (G · peak · efficiency) + decoder bytes / (G · bandwidth) + all-reduce / batch, an image of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchforest.bench.contender import Contender
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable, geometric_mean
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings

WIDTH, DEPTH = 768, 12
"""ViT-B."""
FEATURES = 64
"""Channels of the decoder at full resolution, those of the authors' code; twice as many at each coarser level."""
VALUE_BYTES, TRAIN_FACTOR = 2, 3
"""bf16; forward and backward cost three times the forward."""
BATCH = 16
"""Images of a step, the paper's; one a device where there are more devices."""
UNIFORM = 16384
"""Tokens of UNETR in every row of the table: its patches grow with the image."""


@dataclass(frozen=True)
class Machine:
    """What one device and the network between devices are assumed to do.

    Attributes
    ----------
    peak : FLOP a second.
    efficiency : the share of it that the encoder reaches.
    bandwidth : bytes a second of device memory.
    network : bytes a second that a device sends during an all-reduce.
    """

    name: str
    peak: float
    efficiency: float
    bandwidth: float
    network: float


MI250X = Machine("One of the two dies of an AMD MI250X", 191.5e12, 0.4, 1.6e12, 12.5e9)


@dataclass(frozen=True)
class Published:
    """A row of table II: seconds an image at the same quality.

    Attributes
    ----------
    side : Z, of the square image.
    patch, tokens, seconds : of APF-UNETR.
    uniform_seconds : of UNETR with ``UNIFORM`` tokens.
    """

    side: int
    patch: int
    tokens: int
    seconds: float
    uniform_seconds: float

    @property
    def speedup(self) -> float:
        """Of APF-UNETR over UNETR."""
        return self.uniform_seconds / self.seconds


TABLE_II = (
    Published(512, 4, 1024, 0.06495, 0.4863),
    Published(1024, 8, 1024, 0.14284, 1.0863),
    Published(4096, 16, 2116, 0.32231, 1.8613),
    Published(8192, 16, 2116, 1.1613, 2.6618),
    Published(16384, 32, 1024, 1.7613, 5.1179),
    Published(32768, 32, 2116, 2.1567, 8.1896),
    Published(65536, 32, 4096, 5.733, 13.218),
)
MOST_DEVICES = 2048
"""The largest number of GPUs that the paper names."""


@dataclass(frozen=True)
class Cost:
    """Seconds of training on one image."""

    encoder: float
    decoder: float
    network: float

    @property
    def total(self) -> float:
        """Of all three, none hidden behind another."""
        return self.encoder + self.decoder + self.network


def encoder_flops(tokens: int, *, width: int = WIDTH, depth: int = DEPTH) -> float:
    """FLOP of one forward pass: 24 N d² + 4 N² d a block (MLP ratio 4, multiply and add counted as two)."""
    return depth * (24.0 * tokens * width**2 + 4.0 * tokens**2 * width)


def decoder_bytes(tokens: int, side: int, *, features: int = FEATURES) -> float:
    """Bytes that one forward pass of the authors' decoder moves through memory, bf16.

    Every convolution reads its input and writes its output once, every normalisation with its activation likewise.
    The √L grid is doubled three times (8f, 4f, 2f, f channels; a transposed convolution, a skip and two convolutions
    a level), resized to Z², and joined there with two convolutions of the image and followed by two more.
    """
    grid = sum(
        (tokens * 4**level) * (2.5 * width + 3 * width + 6 * width)  # up, join, two convolutions with norms
        for level, width in ((1, 4 * features), (2, 2 * features), (3, features))
    )
    full = side**2 * (22 * features + 4)  # resize f; branch 3 + 7f; join 4f; last two 9f; head f + 1
    return float(VALUE_BYTES) * (grid + full)


def parameters(*, width: int = WIDTH, depth: int = DEPTH, features: int = FEATURES) -> float:
    """Weights that are all-reduced: 12 d² a block and the decoder's convolutions; biases and tables are left out."""
    decoder = sum(4 * 2 * w * w + 9 * (2 * w * w + w * w) for w in (4 * features, 2 * features, features))
    taps = width * (8 + 4 + 2 + 1) * features
    return 12.0 * width**2 * depth + decoder + taps + 9 * 6 * features**2


def step_cost(tokens: int, side: int, devices: int, machine: Machine = MI250X) -> Cost:
    """Seconds of one image of a training step on so many devices; a step's gradients are exchanged once."""
    sent = 2.0 * (devices - 1) / devices * VALUE_BYTES * parameters()
    return Cost(
        encoder=TRAIN_FACTOR * encoder_flops(tokens) / (devices * machine.peak * machine.efficiency),
        decoder=TRAIN_FACTOR * decoder_bytes(tokens, side) / (devices * machine.bandwidth),
        network=sent / machine.network / max(BATCH, devices),
    )


def devices_of(side: int) -> int:
    """Devices assumed for images of a side: as many pixels on each as one 512² image has, at most ``MOST_DEVICES``."""
    return max(1, min(MOST_DEVICES, side**2 // 512**2))


def plan(settings: Settings) -> list[Contender]:
    """The one table."""
    return [Contender(kind="cost", set="table II", name="model")]


def work(contender: Contender, folder: Path) -> dict[str, Any]:
    """Every row of the table on one device and on many, and what was assumed."""
    rows = []
    for row in TABLE_II:
        many = devices_of(row.side)
        costs = {
            f"{name}_{devices}": asdict(step_cost(tokens, row.side, count))
            for name, tokens in (("adaptive", row.tokens), ("uniform", UNIFORM))
            for devices, count in (("one", 1), ("many", many))
        }
        flops = encoder_flops(UNIFORM) / encoder_flops(row.tokens)
        rows.append({**asdict(row), "devices": many, "encoder_ratio": flops, **costs})
    return {"machine": asdict(MI250X), "parameters": parameters(), "rows": rows}


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """Predicted ratios beside the published ones."""
    result = rows[0].result
    table, seconds, ratios = [], [], []
    for row in result["rows"]:
        cost = {key: Cost(**row[key]) for key in ("adaptive_one", "uniform_one", "adaptive_many", "uniform_many")}
        one, many = (cost[f"uniform_{k}"].total / cost[f"adaptive_{k}"].total for k in ("one", "many"))
        published = row["uniform_seconds"] / row["seconds"]
        ratios.append((one, many, published))
        side = f"{row['side']:,}²"
        table.append(
            (side, f"{row['tokens']:,}", f"{row['encoder_ratio']:.1f}", f"{one:.2f}", str(row["devices"]),
             f"{many:.2f}", f"{published:.2f}")
        )  # fmt: skip
        for name, tokens in (("adaptive", row["tokens"]), ("uniform", UNIFORM)):
            c = cost[f"{name}_one"]
            shares = (f"{1e3 * v:,.1f}" for v in (c.encoder, c.decoder, c.total))
            measured = row["seconds"] if name == "adaptive" else row["uniform_seconds"]
            seconds.append((side, f"{name}, {tokens:,} tokens", *shares, f"{1e3 * measured:,.0f}"))
    means = [geometric_mean([r[k] for r in ratios]) for k in range(3)]
    table.append(("geometric mean", "", "", f"{means[0]:.2f}", "", f"{means[1]:.2f}", f"{means[2]:.2f}"))
    return Note(
        title="Table II by a cost model",
        lines=_assumptions(result),
        tables=(
            NoteTable(
                "Speed-up of adaptive over uniform tokens",
                ("image", "tokens", "encoder FLOP ratio", "model, 1 device", "devices", "model, many", "published"),
                tuple(table),
            ),
            NoteTable(
                "Milliseconds an image and training step, one device, by the model",
                ("image", "contender", "encoder", "decoder", "all", "published, devices not stated"),
                tuple(seconds),
            ),
        ),
        numbers=result,
    )


def _assumptions(result: dict[str, Any]) -> tuple[str, ...]:
    m = Machine(**result["machine"])
    return (
        "**A model and not a measurement**: nothing here was run on a GPU. It says what the token counts of the "
        "paper's table II would buy if the encoder were bound by arithmetic, the decoder by memory, and the exchange "
        "of gradients by the network, none overlapping another.",
        "Assumed: t = encoder FLOP / (G · peak · efficiency) + decoder bytes / (G · bandwidth) + all-reduce / batch, "
        f"an image. {m.name}: peak {m.peak / 1e12:g} TFLOP/s (bf16), efficiency {m.efficiency:g}, memory "
        f"{m.bandwidth / 1e12:g} TB/s, network {m.network / 1e9:g} GB/s a device. ViT-B (width {WIDTH}, depth "
        f"{DEPTH}), 24 N d² + 4 N² d FLOP a block forward; backward costs twice the forward. UNETR reads "
        f"{UNIFORM:,} tokens in every row.",
        f"Decoder: the authors', which resizes a √L grid to Z² and works there on {FEATURES} channels, bf16; every "
        f"layer reads its input and writes its output once. All-reduce: {result['parameters'] / 1e6:.0f} M weights in "
        f"bf16 at 2 (G − 1) / G, once a step of {BATCH} images, or of G where that is more. We know no G row by row: "
        f"assumed are as many devices as 512² tiles, at most the {MOST_DEVICES:,} that the paper names. Not in the "
        "model: reading and decoding images, building trees, activation checkpoints, kernels below their limits.",
        "Reading: the ratio of the encoders alone is far above what is published end to end. The decoder's traffic, "
        "which no tree makes less, takes over as images grow: from 8K² on it is more than nine tenths of an adaptive "
        "step. The model promises too much up to 1K², where input and small kernels count, and too little from 16K² "
        "on, where the published times grow far more slowly than the pixels, so that they cannot hold this decoder at "
        "full traffic. That the geometric means are close is chance.",
    )


KIND = Kind(
    title="the multi-GPU columns of APF's table II by a cost model; no data are read",
    options=(),
    plan=plan,
    work=work,
    note=note,
)
