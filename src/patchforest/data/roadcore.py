"""Simulated X-ray CT slices of road cores with their exact label map: an endless, seeded, five-class data set.

Stones (convex, sizes of a Fuller grading, packed without overlap), air voids, a film and pools of asphalt binder,
sand-textured mortar and thin cracks that wind through the mortar between the stones make a label map; every phase
has an attenuation with its own texture; ``tomography`` turns it into what a scanner would have reconstructed.
Large smooth stones beside thin cracks and films are what adaptive patches are for.

Source: the pipeline of ROVAI (road cores at 8192² simulated from micro-structure label maps); geometry and values are
ours. ``shifted=True`` changes geometry, contrast and scanner at once: a stand-in for real slices after training on
simulated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from patchforest.data.tomography import Scan, reconstruct, scan_errors
from patchforest.values import Array, as_shape

ROADCORE_CLASSES = ("mortar", "stone", "void", "crack", "asphalt")
MORTAR, STONE, VOID, CRACK, ASPHALT = range(5)

_GREY_LOW, _GREY_HIGH = -0.15, 1.25  # attenuations shown as 0 and 255, the same for every slice


@dataclass(frozen=True)
class RoadMix:
    """What the core is made of. Lengths are in pixels and grow with ``scale``; shares are of the whole area.

    Attributes
    ----------
    scale : factor on every length, for the same material seen with finer pixels.
    stone_share : share of stones aimed at; packing by trial reaches about 0.6.
    stone_max, stone_min : largest and smallest diameter; in between, the area share of stones below d grows as √d
        (Fuller), so counts follow a power law. At most 0.45 of the slice's shorter side.
    stone_level, stone_spread : mean attenuation of stones and its standard deviation from stone to stone (1 =
        dense basalt, 0 = air).
    corners : fewest and most corners of a stone.
    mortar_level, asphalt_level : mean attenuation of mortar and of binder.
    sand : standard deviation of the mortar's texture.
    void_share, void_max, void_min : round air voids, graded like the stones.
    film : mean thickness of the binder film around stones; it varies from 0 to twice this along the way.
    pool_share : share of binder lying in pools in the mortar.
    cracks : number of cracks in 1024 pixels of side, at least one unless 0.
    crack_width : greatest width of a crack; it varies along the way and tapers to its ends.
    """

    scale: float = 1.0
    stone_share: float = 0.56
    stone_max: float = 170.0
    stone_min: float = 11.0
    stone_level: float = 0.80
    stone_spread: float = 0.06
    corners: tuple[int, int] = (5, 10)
    mortar_level: float = 0.58
    asphalt_level: float = 0.40
    sand: float = 0.045
    void_share: float = 0.04
    void_max: float = 46.0
    void_min: float = 4.0
    film: float = 2.2
    pool_share: float = 0.03
    cracks: float = 3.0
    crack_width: float = 4.5

    def __post_init__(self) -> None:
        if self.scale <= 0 or not 0 < self.stone_min <= self.stone_max or not 0 < self.void_min <= self.void_max:
            raise ValueError(f"scale, stone and void diameters must be positive and min <= max; got {self}")
        if not 3 <= self.corners[0] <= self.corners[1]:
            raise ValueError(f"corners must be (fewest, most) with at least 3; got {self.corners}")


SHIFTED_MIX = RoadMix(
    stone_share=0.48, stone_max=120.0, stone_level=0.74, stone_spread=0.09, corners=(8, 16), mortar_level=0.55,
    sand=0.06, void_share=0.07, void_max=64.0, film=1.8, pool_share=0.06, cracks=5.0, crack_width=3.5,
)  # fmt: skip


def make_roadcore(
    shape: Sequence[int],
    *,
    seed: int,
    noise: float | None = None,
    ring: float | None = None,
    blur: float | None = None,
    shifted: bool = False,
    mix: RoadMix | None = None,
) -> tuple[Array, Array]:
    """One simulated slice and its truth: image uint8 (H, W), label uint8 (H, W) of ``ROADCORE_CLASSES``.

    ``noise``, ``ring`` (attenuation, air = 0, a dense stone = 1) and ``blur`` (pixels) are those of
    ``tomography.Scan``; the defaults are 0.05, 0.012 and 0.9, and 0.09, 0.02 and 1.3 when ``shifted``. ``mix``
    replaces the material. Grey values are attenuations in one fixed window, so they mean the same in every slice.
    The same arguments give the same bits; a slice of another shape is another slice.
    """
    size = as_shape(shape)
    if len(size) != 2:
        raise ValueError(f"a slice is 2-D: shape must be (H, W); got {size}")
    usual = Scan(noise=0.09, ring=0.02, blur=1.3, hardening=0.06) if shifted else Scan()
    scan = Scan(
        noise=usual.noise if noise is None else noise,
        ring=usual.ring if ring is None else ring,
        blur=usual.blur if blur is None else blur,
        hardening=usual.hardening,
    )
    material = mix or (SHIFTED_MIX if shifted else RoadMix())
    build_rng, scan_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    label, stones = make_structure(size, material, build_rng)
    attenuation = _attenuation(label, stones, material, build_rng)
    seen = cv2.GaussianBlur(attenuation, (0, 0), scan.blur) if scan.blur > 0 else attenuation
    seen = seen + reconstruct(scan_errors(attenuation, scan, scan_rng), size, blur=scan.blur)
    grey = (seen - _GREY_LOW) * (255.0 / (_GREY_HIGH - _GREY_LOW))
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8), label


def make_structure(shape: Sequence[int], mix: RoadMix, rng: np.random.Generator) -> tuple[Array, Array]:
    """The geometry alone: label uint8 (H, W) and the stone that owns each pixel, int32 (H, W), 0 for none."""
    height, width = int(shape[0]), int(shape[1])
    label, owner = _pack((height, width), mix, rng)
    shift = 1.0 * mix.scale  # rough outlines: the map is looked up a little beside each pixel
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    rows += shift * _smooth_noise(label.shape, 5 * mix.scale, rng)
    columns += shift * _smooth_noise(label.shape, 5 * mix.scale, rng)
    label = cv2.remap(label, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    owner = cv2.remap(owner.astype(np.float32), columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    owner = owner.astype(np.int32)
    distance, nearest = _nearest_stone(owner)
    thickness = mix.film * mix.scale * np.clip(1 + 0.8 * _smooth_noise(label.shape, 10 * mix.scale, rng), 0, 2)
    pools = _smooth_noise(label.shape, 9 * mix.scale, rng)
    mortar = label == MORTAR
    label[mortar & (distance <= thickness)] = ASPHALT
    if mix.pool_share > 0 and mortar.any():
        wanted = min(1.0, mix.pool_share * label.size / mortar.sum())
        label[mortar & (pools > np.quantile(pools[mortar], 1 - wanted))] = ASPHALT
    if mix.cracks > 0:
        for _ in range(max(1, round(mix.cracks * max(height, width) / 1024))):
            label[_crack(owner, nearest, mix, rng) & (label != STONE) & (label != VOID)] = CRACK
    return label, owner


def _smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Array:
    """Gaussian noise float32 of mean 0 and standard deviation about 1, smooth over ``sigma`` pixels."""
    step = max(1.0, sigma / 2)
    small = (int(np.ceil(shape[0] / step)) + 8, int(np.ceil(shape[1] / step)) + 8)
    field: Array = rng.standard_normal(small, dtype=np.float32)
    spread = max(sigma / step, 0.3)
    field = cv2.GaussianBlur(field, (0, 0), spread) * np.float32(2 * np.sqrt(np.pi) * spread)
    if step > 1:
        field = cv2.resize(field, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return field[: shape[0], : shape[1]]


def _pack(shape: tuple[int, int], mix: RoadMix, rng: np.random.Generator) -> tuple[Array, Array]:
    """Stones and voids placed from the largest to the smallest wherever they still fit: label, owner."""
    label = np.zeros(shape, np.uint8)
    owner = np.zeros(shape, np.int32)
    limit = 0.45 * min(shape)
    classes = [
        *((d, share, STONE) for d, share in _grading(mix.stone_max, mix.stone_min, mix.stone_share, mix.scale, limit)),
        *((d, share, VOID) for d, share in _grading(mix.void_max, mix.void_min, mix.void_share, mix.scale, limit)),
    ]
    count, debt = 0, 0.0
    for diameter, share, kind in sorted(classes, key=lambda c: -c[0]):
        wanted = share * label.size + (debt if kind == STONE else 0)
        free = cv2.distanceTransform(np.pad((label == MORTAR).astype(np.uint8), 1, mode="reflect"), cv2.DIST_L2, 3)
        room = np.flatnonzero(free[1:-1, 1:-1] >= 0.36 * diameter)
        tries = int(6 * wanted / (0.6 * diameter**2)) + 8
        for at in room[rng.integers(0, len(room), tries)] if len(room) else ():
            if wanted <= 0:
                break
            centre = divmod(int(at), shape[1])
            outline = _outline(diameter * rng.uniform(0.85, 1.1), kind, mix, rng)
            count += kind == STONE
            wanted -= _place(label, owner, outline, centre, kind, count if kind == STONE else 0, 2 * mix.scale)
        if kind == STONE:
            debt = max(0.0, wanted)  # what did not fit is made up for by smaller stones
    return label, owner


def _grading(largest: float, smallest: float, share: float, scale: float, limit: float) -> list[tuple[float, float]]:
    """(diameter, share of the area) from large to small in steps of 0.8; the share finer than d grows as √d."""
    if share <= 0:
        return []
    top, bottom = min(largest * scale, limit), smallest * scale
    edges = [top]
    while edges[-1] * 0.8 > bottom:
        edges.append(edges[-1] * 0.8)
    finer = np.sqrt(np.array([*edges, 0.8 * edges[-1]]))
    return list(zip(edges, share * -np.diff(finer) / (finer[0] - finer[-1]), strict=True))


def _outline(diameter: float, kind: int, mix: RoadMix, rng: np.random.Generator) -> Array:
    """Corners (k, 2), (column, row) about 0: on an ellipse, hence convex, for a stone; dented for a void."""
    stone = kind == STONE
    k = int(rng.integers(mix.corners[0], mix.corners[1] + 1)) if stone else 24
    angle = (np.arange(k) + (rng.uniform(-0.35, 0.35, k) if stone else 0)) * (2 * np.pi / k)
    radius = diameter / 2 * (1.0 if stone else 1 + 0.07 * np.sin(3 * angle + rng.uniform(0, 6)))
    flat = rng.uniform(0.62, 1.0) if stone else rng.uniform(0.75, 1.0)
    points = np.stack([radius * np.cos(angle) / np.sqrt(flat), radius * np.sin(angle) * np.sqrt(flat)], 1)
    turn = rng.uniform(0, 2 * np.pi)
    return points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def _place(
    label: Array, owner: Array, outline: Array, centre: tuple[int, int], kind: int, number: int, gap: float
) -> int:
    """Draw one outline if it and a gap around it are still mortar; the pixels drawn, 0 if it did not fit."""
    reach = int(np.ceil(np.abs(outline).max() + gap)) + 2
    top, left = max(0, centre[0] - reach), max(0, centre[1] - reach)
    window = (slice(top, centre[0] + reach + 1), slice(left, centre[1] + reach + 1))
    at = np.array([centre[1] - left, centre[0] - top])
    grown = outline * (1 + gap / (np.abs(outline).max() * 0.8))
    area = np.zeros(label[window].shape, np.uint8)
    cv2.fillPoly(area, [np.rint((grown + at) * 16).astype(np.int32)], 1, shift=4)
    if np.any(label[window][area > 0]):
        return 0
    area[:] = 0
    cv2.fillPoly(area, [np.rint((outline + at) * 16).astype(np.int32)], 1, shift=4)
    drawn = area > 0
    label[window][drawn] = kind
    owner[window][drawn] = number
    return int(drawn.sum())


def _nearest_stone(owner: Array) -> tuple[Array, Array]:
    """Distance to the nearest stone (float32) and its number in ``owner`` (int32); inf and 0 without stones."""
    if not owner.any():
        return np.full(owner.shape, np.inf, np.float32), np.zeros_like(owner)
    distance, part = cv2.distanceTransformWithLabels(
        (owner == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    number = np.zeros(int(part.max()) + 1, np.int32)
    inside = owner > 0
    number[part[inside]] = owner[inside]
    return distance, number[part]


def _crack(owner: Array, nearest: Array, mix: RoadMix, rng: np.random.Generator) -> Array:
    """Pixels (bool) of one crack: the border between the stones on either side of a wavy line, so it avoids stones."""
    height, width = owner.shape
    side, angle = max(height, width), rng.uniform(0, np.pi)
    point = np.array([rng.uniform(0.15, 0.85) * height, rng.uniform(0.15, 0.85) * width])
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    along = (rows - point[0]) * np.float32(np.sin(angle)) + (columns - point[1]) * np.float32(np.cos(angle))
    away = (rows - point[0]) * np.float32(np.cos(angle)) - (columns - point[1]) * np.float32(np.sin(angle))
    wave, phase = rng.uniform(0.15, 0.4) * side, rng.uniform(0, 2 * np.pi)
    away += np.float32(0.04 * side) * np.sin(along / np.float32(wave) + np.float32(phase))
    stones = np.bincount(owner.ravel())
    mean_away = np.bincount(owner.ravel(), weights=away.ravel()) / np.maximum(stones, 1)
    side_of = (mean_away > 0) if len(stones) > 1 else None
    above = (away > 0) if side_of is None else side_of[nearest]
    border = cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    length = rng.uniform(0.25, 0.6) * side
    taper = np.clip(1.2 * (1 - np.abs(along) / length), 0, 1)
    width_here = mix.crack_width * mix.scale * taper * (0.65 + 0.25 * _smooth_noise(owner.shape, 14 * mix.scale, rng))
    distance = cv2.distanceTransform(1 - border, cv2.DIST_L2, 3)
    return (distance < np.clip(width_here, 0, None) / 2) & (taper > 0)


def _attenuation(label: Array, owner: Array, mix: RoadMix, rng: np.random.Generator) -> Array:
    """Attenuation float32 (H, W), air 0 to dense stone 1: one mean a phase and stone, and each phase's texture."""
    grains = _smooth_noise(label.shape, 1.6 * mix.scale, rng)
    sand = mix.sand * (0.6 * grains + 1.6 * np.clip(grains - 1.0, 0, 1.2) - 0.13)
    level = mix.mortar_level + sand + 0.02 * _smooth_noise(label.shape, 40 * mix.scale, rng)
    binder = mix.asphalt_level + 0.25 * sand
    count = int(owner.max()) + 1
    of_stone = np.clip(rng.normal(mix.stone_level, mix.stone_spread, count), mix.mortar_level + 0.06, 1.05)
    speckle = (0.35 * rng.random(count) ** 2).astype(np.float32)[owner]
    veins = _smooth_noise(label.shape, 6 * mix.scale, rng)
    stone = of_stone.astype(np.float32)[owner] + 0.015 * veins + 0.12 * speckle * grains
    out = np.select([label == MORTAR, label == STONE, label == ASPHALT], [level, stone, binder], 0.0)
    return out.astype(np.float32)
