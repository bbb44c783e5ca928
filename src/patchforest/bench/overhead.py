"""What patching costs: where the CPU time of a training step and of a prediction goes, part by part, on one thread."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from patchforest.bench.contender import Contender
from patchforest.bench.contenders import contenders_of
from patchforest.bench.kind import Kind
from patchforest.bench.note import Note, NoteTable
from patchforest.bench.quality import by_contender
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.bench.training import make_contender, picked
from patchforest.train.config import RunConfig, load_config

if TYPE_CHECKING:
    from torch import nn

    from patchforest.bench.stopwatch import Layers, Stopwatch
    from patchforest.train.task import TrainingTask

SETS = ("glas", "hrf")
CONTENDERS = ("APF-UNETR", "SHF", "U-Net 2x", "U-Net 4x")
WARM, STEPS, IMAGES = 3, 12, 3
"""Steps before the clock counts, steps whose median is taken, images predicted."""

DECODE, CROP, DETAIL, FOREST, COLLATE = "decode", "crop, augment", "detail map", "forest", "collate"
GATHER, EMBED, ENCODER, DECODER, OTHER = "gather", "embed", "encoder", "decoder", "other layers"
LOSS, CLIP, OPTIMISER, AVERAGE = "loss", "clip", "optimiser", "moving average"
READ, PAINT, BLEND = "read, scale", "paint", "blend, enlarge"
REFINE, CARRY = "second forest", "carry states"
PATCHING = (DETAIL, FOREST, GATHER, REFINE, CARRY)
"""What only models with a forest do, the last two those that look twice. Of ``collate`` they do a little more."""

LAYERS = {
    "trunk.stem": "stem",
    "trunk.embed": EMBED,
    "trunk.encoder": ENCODER,
    "trunk.encoder.blocks": ENCODER,
    "trunk.encoder.norm": ENCODER,
    "stem": "stem",
    "stages": "stem",
    "embed": EMBED,
    "encoder": ENCODER,
    "down": ENCODER,
    **dict.fromkeys(("paint", "unetr", "readout", "look", "token", "neck", "up", "decoder", "head"), DECODER),
}
"""Module of a network → part. A U-Net's contracting path is its encoder."""


def plan(settings: Settings) -> list[Contender]:
    """Set by set; ``sizes`` are sides of training windows in pixels of the recipe's scale, else the recipe's own."""
    found = []
    for name in settings.sets:
        recipe = load_config(settings.recipe(name), settings.changes)
        chosen = picked(contenders_of(recipe, full=settings.full), settings)
        models = chosen if settings.contenders else {n: chosen[n] for n in CONTENDERS}
        for side in settings.sizes or (None,):
            for model, changes in models.items():
                sized = (*changes, "train.max_steps=1", *(() if side is None else _at_side(recipe, changes, side)))
                label = name if side is None else f"{name} {side}"
                found.append(make_contender("overhead", name, model, sized, 0, settings, label=label))
    return found


def _at_side(recipe: RunConfig, changes: Sequence[str], side: int) -> tuple[str, ...]:
    """Changes that make the windows ``side`` pixels of the recipe's scale, with as many pixels a leaf as before."""
    merged = dict(text.split("=", 1) for text in changes)
    height, width = recipe.data.window_shape
    down = int(merged.get("data.downscale", recipe.data.downscale))
    window = (f"data.window={side * recipe.data.downscale // down}",)
    if recipe.forest is None or recipe.forest.budget is None or "forest.uniform" in merged:
        return window
    budget = int(merged.get("forest.budget", recipe.forest.budget))
    return (*window, f"forest.budget={max(round(budget * side * side / (height * width)), 1)}")


def work(contender: Contender, folder: Path) -> dict[str, Any]:
    """Milliseconds of CPU time by part: of a training step (median), and of a prediction (mean over images)."""
    from patchforest.bench.stopwatch import Layers, Stopwatch
    from patchforest.data.layout import find_cases
    from patchforest.train.compat import require_lightning
    from patchforest.train.fit import resolve, split
    from patchforest.train.inputs import channels_of

    require_lightning()
    from patchforest.train.parts import Parts
    from patchforest.train.work import make_task

    config = load_config(contender.recipe, (*contender.changes, "train.device=cpu"))
    cases = find_cases(Path(contender.data), layout=config.data.layout)
    parts = Parts(*split(cases, config))
    config = resolve(config, cases, channels_of(parts.training[0], config))
    task, watch = make_task(config, parts), Stopwatch()
    layers = Layers(watch, task.network, LAYERS)
    with warnings.catch_warnings(), _watched(watch, layers, task):
        warnings.simplefilter("ignore")
        steps, tokens, decode = _steps(watch, layers, task, config)
        predicted = _predictions(watch, task.network, config, parts.validation[:IMAGES])
    return {
        "window": list(config.data.window_shape),
        "batch": config.train.batch,
        "tokens": tokens,
        "parameters": sum(p.numel() for p in task.network.parameters()),
        "decode": decode,
        "step": middle(steps),
        "prediction": predicted,
    }


def middle(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of every part over steps, a part that a step lacks being 0 there; in order of appearance."""
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: median(step.get(name, 0.0) for step in steps) for name in names}


def _steps(
    watch: Stopwatch, layers: Layers, task: TrainingTask, config: RunConfig
) -> tuple[list[dict[str, float]], int, float]:
    """Milliseconds by part of every step; tokens of a window; milliseconds of decoding an image, which comes once."""
    import torch

    from patchforest.data.samples import collate

    optimiser, batch, tokens, steps = task.configure_optimizers(), config.train.batch, 0, []
    watch.spent.clear()
    watch.calls.clear()
    decoding = 0.0
    for number in range(WARM + STEPS):
        with watch.part(CROP):
            samples: list[Any] = [task.samples[i] for i in range(number * batch, (number + 1) * batch)]
        with watch.part(COLLATE):
            items = collate(samples)
        tokens = max(len(f) for f in items.forests) if items.forests else 0
        with watch.part(LOSS), torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16"):
            loss = task.training_step(items, 0)
        assert loss is not None, "the loss of a fresh network is finite"
        layers.backward(loss, LOSS)
        with watch.part(CLIP):
            task.configure_gradient_clipping(optimiser)
        with watch.part(OPTIMISER):
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with watch.part(AVERAGE):
            task.made_step()
        decoding += watch.spent.pop(DECODE, 0.0)
        if number >= WARM:
            steps.append({name: 1e3 * seconds for name, seconds in watch.spent.items()})
        watch.spent.clear()
    return steps, tokens, 1e3 * decoding / max(watch.calls[DECODE], 1)


def _predictions(watch: Stopwatch, network: nn.Module, config: RunConfig, cases: Sequence[Any]) -> dict[str, float]:
    """Mean milliseconds by part of predicting a whole image, from its file to its mask, after a first to warm up."""
    import torch

    from patchforest.infer.predict import predict
    from patchforest.io.open import open_image
    from patchforest.models.bundle import Bundle
    from patchforest.train.fit import model_spec

    bundle = Bundle(network, model_spec(config))

    def once(path: Path) -> None:
        with watch.part(DECODE):
            pixels = open_image(path).read()
        with watch.part(BLEND), torch.inference_mode():
            predict(bundle, pixels, window="whole", precision=config.train.precision)

    once(cases[0].image)
    watch.spent.clear()
    for case in cases:
        once(case.image)
    return {name: 1e3 * seconds / len(cases) for name, seconds in watch.spent.items()}


@contextmanager
def _watched(watch: Stopwatch, layers: Layers, task: TrainingTask) -> Iterator[None]:
    """Inside the block, the functions between file and mask are timed."""
    from contextlib import ExitStack

    from patchforest.bench.stopwatch import replaced, timed
    from patchforest.data import samples
    from patchforest.infer.working import WorkingImage
    from patchforest.models import refined, trunk
    from patchforest.nn.raster import ForestBatch
    from patchforest.nn.readout.output import RasterMask, TokenMask
    from patchforest.tree import cut

    network: Any = task.network
    calls = [
        (samples, "open_picture", DECODE),
        (cut, "detail_map", DETAIL),
        (cut, "variance_pyramid", DETAIL),
        (cut, "build_by_policy", FOREST),
        (refined, "refine", REFINE),
        (ForestBatch, "stack", COLLATE),
        (WorkingImage, "read", READ),
        (RasterMask, "raster", PAINT),
        (TokenMask, "raster", PAINT),
    ]
    with ExitStack() as stack:
        stack.enter_context(timed(watch, calls))
        stack.enter_context(replaced(trunk, "gather_batch", layers.calls(trunk.gather_batch, GATHER)))
        stack.enter_context(replaced(refined, "carry", layers.calls(refined.carry, CARRY)))
        stack.enter_context(replaced(network, "output", layers.calls(network.output, OTHER)))
        yield


def note(rows: Sequence[Row], settings: Settings) -> Note:
    """A table for training and one for prediction, for every set."""
    lines = (
        f"CPU milliseconds of one process on {settings.threads} thread(s), so that other work on the machine counts "
        f"little; a training step is the median of {STEPS} after {WARM} others, each part by itself; a prediction the "
        f"mean of {IMAGES} whole validation images. Networks are freshly initialised: weights change no time.",
        "Forward / backward. The backward pass is timed node by node of the graph, each for the part that made it; "
        "`gradients` is what remains of it. `gather` is of pixels and stem features into leaves, `other layers` is "
        "between named parts (of U-Nets: pooling, joining, enlarging). A U-Net's contracting path is its encoder. "
        "Patching: detail map, forest and gather, forward and backward, and of models that look twice the second "
        "forest and carrying states to its leaves; their first answer is of the decoder, and their tokens a window "
        "those of the first forest. Images are decoded once and then held.",
    )
    names = list(dict.fromkeys(r.contender.set for r in rows))
    return Note(
        title="What patching costs",
        lines=lines,
        tables=tuple(
            table
            for name in names
            for table in (
                _training(name, [r for r in rows if r.contender.set == name]),
                _prediction(name, [r for r in rows if r.contender.set == name]),
            )
        ),
        numbers=[{"set": r.contender.set, "contender": r.contender.name, **r.result} for r in rows],
    )


def share_of_patching(parts: Mapping[str, float]) -> float:
    """Of all milliseconds, those of ``PATCHING``, backward passes included."""
    from patchforest.bench.stopwatch import BACKWARD

    return sum(parts.get(name, 0.0) for part in PATCHING for name in (part, part + BACKWARD)) / sum(parts.values())


def _training(name: str, rows: Sequence[Row]) -> NoteTable:
    results = {n: mine[0].result for n, mine in by_contender(rows).items()}
    steps = {n: r["step"] for n, r in results.items()}
    lines = [
        ("window, batch", *(f"{r['window'][0]}², {r['batch']}" for r in results.values())),
        ("tokens a window", *(str(r["tokens"] or "–") for r in results.values())),
        *_part_rows(steps),
        ("**a step**", *(f"{sum(s.values()):,.0f}" for s in steps.values())),
        (
            "**an image of a step**",
            *(f"{sum(s.values()) / r['batch']:,.1f}" for s, r in zip(steps.values(), results.values())),
        ),
        ("**patching**", *(f"{100 * share_of_patching(s):.1f} %" if r["tokens"] else "–"
                           for s, r in zip(steps.values(), results.values()))),
        ("decode an image, once", *(f"{r['decode']:,.0f}" for r in results.values())),
    ]  # fmt: skip
    return NoteTable(f"{name}: a training step, ms", ("part", *results), tuple(lines))


def _prediction(name: str, rows: Sequence[Row]) -> NoteTable:
    results = {n: mine[0].result for n, mine in by_contender(rows).items()}
    parts = {n: r["prediction"] for n, r in results.items()}
    lines = [
        *_part_rows(parts),
        ("**an image**", *(f"{sum(p.values()):,.0f}" for p in parts.values())),
        ("**patching**", *(f"{100 * share_of_patching(p):.1f} %" if r["tokens"] else "–"
                           for p, r in zip(parts.values(), results.values()))),
    ]  # fmt: skip
    return NoteTable(f"{name}: a prediction, ms", ("part", *results), tuple(lines))


def _part_rows(columns: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """A row for every part that any contender has: forward, and backward behind a slash where there is one."""
    from patchforest.bench.stopwatch import BACKWARD

    found = dict.fromkeys(name for parts in columns.values() for name in parts)
    known = (
        DECODE, READ, CROP, DETAIL, FOREST, COLLATE, "stem", GATHER, EMBED, REFINE, CARRY, ENCODER, DECODER, OTHER,
        PAINT, LOSS, "gradients", CLIP, OPTIMISER, AVERAGE, BLEND,
    )  # fmt: skip
    plain = [n for n in (*known, *found) if n in found and not n.endswith(BACKWARD)]
    rows = []
    for part in dict.fromkeys(plain):
        cells = []
        for parts in columns.values():
            forward, backward = parts.get(part), parts.get(part + BACKWARD)
            text = "–" if forward is None else f"{forward:,.1f}"
            cells.append(text if backward is None else f"{text} / {backward:,.1f}")
        rows.append((part, *cells))
    return rows


KIND = Kind(
    title="where the time of a training step and of a prediction goes, part by part, and the share of patching",
    options=("sets", "contenders", "sizes", "recipes", "full", "changes"),
    plan=plan,
    work=work,
    note=note,
    sets=SETS,
)
