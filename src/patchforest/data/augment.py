"""Random changes of an image window that leave its meaning alone: turns, warps, colour, tone, noise, blur.

Every draw comes from the generator that is passed in, so a window's augmentation is a function of its seed. Labels
move with the pixels by nearest neighbour and become -1 (ignore) where the window looks outside the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

from patchforest.values import Array

_NOISE = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)], np.float32)
IGNORE = -1


@dataclass(frozen=True)
class Augment:
    """How windows are varied. Probabilities are per window; amounts are the ends of uniform draws.

    Attributes
    ----------
    flip : probability of a mirror image along rows, and again along columns.
    turn : probability of a random number of quarter turns (square windows; a half turn on others).
    affine : probability of a change of scale and angle.
    scale : smallest and largest factor on the size of objects.
    rotation : largest angle of it, in degrees.
    colour : probability of a gain and an offset per channel, as another stain or lamp would make.
    gain, offset : largest change of a channel's gain, and of its offset as a share of the full range.
    tone : probability of a change of brightness, contrast and gamma of all channels together.
    brightness, contrast : largest offset as a share of the full range; largest change of the slope about mid-grey.
    gamma : smallest and largest exponent.
    noise : probability of Gaussian noise; ``noise_std`` is its largest standard deviation, a share of the full range.
    blur : probability of Gaussian blur; ``blur_sigma`` is its largest standard deviation in pixels.
    mirror : axes of volumes along which ``flip`` mirrors (0 plane, 1 row, 2 column); of a patient only the last, if
        any. Of the rest, volumes know ``turn`` (in the plane), ``colour``, ``tone`` and ``noise``.
    """

    flip: float = 0.5
    turn: float = 0.75
    affine: float = 0.2
    scale: tuple[float, float] = (0.7, 1.4)
    rotation: float = 30.0
    colour: float = 0.5
    gain: float = 0.12
    offset: float = 0.05
    tone: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.2
    gamma: tuple[float, float] = (0.75, 1.33)
    noise: float = 0.15
    noise_std: float = 0.03
    blur: float = 0.1
    blur_sigma: float = 1.2
    mirror: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        for name in ("flip", "turn", "affine", "colour", "tone", "noise", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, 0 to 1; got {getattr(self, name)}")
        if not set(self.mirror) <= {0, 1, 2}:
            raise ValueError(f"mirror names axes 0, 1 and 2; got {list(self.mirror)}")
        for name in ("rotation", "gain", "offset", "brightness", "contrast", "noise_std", "blur_sigma"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}")
        for name in ("scale", "gamma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (smallest, largest), both positive; got ({low}, {high})")

    @property
    def margin(self) -> float:
        """How much larger than the window a source should be so that scaling down finds real pixels; 1 without."""
        return max(1.0, 1.0 / self.scale[0]) if self.affine > 0 else 1.0


def augment(
    image: Array,
    label: Array,
    rng: np.random.Generator,
    settings: Augment | None = None,
    *,
    size: int | tuple[int, int] | None = None,
) -> tuple[Array, Array]:
    """A varied copy of a window: image of the same dtype and channels, label int16 with -1 where nothing is known.

    Parameters
    ----------
    image : (h, w, C), uint8, or float32 in [0, 1] (other data passes its window first).
    label : (h, w) class numbers, -1 for pixels to ignore.
    settings : default ``Augment()``.
    size : side of the result, or its (height, width), cut from the middle of the source; None: the source's own. A
        source larger than the result (see ``Augment.margin``) lets a warp look at real pixels beyond the window.

    Raises
    ------
    ValueError : another dtype or rank, sizes of image and label that differ, or a source smaller than ``size``.
    """
    shape = (size, size) if isinstance(size, int) else size or (image.shape[0], image.shape[1])
    _check(image, label, shape)
    chosen = settings or Augment()
    image, label = _place(image, label.astype(np.int16, copy=False), shape, rng, chosen)
    image, label = _turn(image, label, rng, chosen)
    image = _tone(image, rng, chosen)
    if rng.random() < chosen.blur:
        sigma = rng.uniform(0.3, 1.0) * chosen.blur_sigma
        if sigma > 0:
            image = cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)
    if rng.random() < chosen.noise:
        image = _add_noise(image, rng.uniform(0, chosen.noise_std), rng)
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def _check(image: Array, label: Array, size: tuple[int, int]) -> None:
    if image.ndim != 3 or image.dtype not in (np.uint8, np.float32):
        raise ValueError(f"image must be (h, w, C), uint8 or float32 in [0, 1]; got {image.shape} {image.dtype}")
    if label.shape != image.shape[:2]:
        raise ValueError(f"label must have the image's size {image.shape[:2]}; got {label.shape}")
    if size[0] > label.shape[0] or size[1] > label.shape[1]:
        raise ValueError(f"size must fit the source {label.shape}; got {size}")


def _place(
    image: Array, label: Array, shape: tuple[int, int], rng: np.random.Generator, settings: Augment
) -> tuple[Array, Array]:
    """The middle of the source, or a turned and scaled view of it: ``shape`` pixels."""
    height, width = label.shape
    if rng.random() < settings.affine:
        scale = float(np.exp(rng.uniform(*np.log(settings.scale))))
        angle = np.deg2rad(rng.uniform(-settings.rotation, settings.rotation))
        c, s = np.cos(angle) / scale, np.sin(angle) / scale
        x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        to_source = np.array([[c, -s, (width - 1) / 2 - c * x + s * y], [s, c, (height - 1) / 2 - s * x - c * y]])
        flags = cv2.WARP_INVERSE_MAP
        planes = [
            cv2.warpAffine(
                np.ascontiguousarray(image[..., k : k + 4]), to_source, (shape[1], shape[0]),
                flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101,
            ).reshape(*shape, -1)
            for k in range(0, image.shape[2], 4)
        ]  # fmt: skip
        moved = cv2.warpAffine(
            np.ascontiguousarray(label), to_source, (shape[1], shape[0]),
            flags=flags | cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE,
        )  # fmt: skip
        return (planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)), moved
    top, left = (height - shape[0]) // 2, (width - shape[1]) // 2
    window = (slice(top, top + shape[0]), slice(left, left + shape[1]))
    return image[window], label[window]


def _turn(image: Array, label: Array, rng: np.random.Generator, settings: Augment) -> tuple[Array, Array]:
    """Mirror images and quarter turns."""
    for axis in (0, 1):
        if rng.random() < settings.flip:
            image, label = np.flip(image, axis), np.flip(label, axis)
    if rng.random() < settings.turn:
        quarters = int(rng.integers(4))
        if label.shape[0] != label.shape[1]:
            quarters = quarters // 2 * 2
        image, label = np.rot90(image, quarters), np.rot90(label, quarters)
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def _tone(image: Array, rng: np.random.Generator, settings: Augment) -> Array:
    """Colour and tone as one curve a channel: a look-up table for 8 bits, arithmetic for floats."""
    channels = image.shape[2]
    gain: Array = np.ones(channels)
    offset: Array = np.zeros(channels)
    gamma = 1.0
    coloured, toned = rng.random() < settings.colour, rng.random() < settings.tone
    if coloured:
        gain = 1 + rng.uniform(-settings.gain, settings.gain, (channels,))
        offset = rng.uniform(-settings.offset, settings.offset, (channels,))
    if toned:
        slope = 1 + float(rng.uniform(-settings.contrast, settings.contrast))
        shift = float(rng.uniform(-settings.brightness, settings.brightness))
        gain *= slope
        offset = (offset - 0.5) * slope + 0.5 + shift
        gamma = float(np.exp(rng.uniform(*np.log(settings.gamma))))
    if not (coloured or toned):
        return image
    if image.dtype == np.uint8:
        value = np.arange(256)[:, None] / 255.0
        curve = np.clip(value * gain + offset, 0, 1) ** gamma
        table = np.rint(curve * 255).astype(np.uint8).reshape(1, 256, channels)
        return cv2.LUT(image, table if channels > 1 else table[..., 0]).reshape(image.shape)
    out = np.clip(image * gain.astype(np.float32) + offset.astype(np.float32), 0, 1)
    return np.power(out, np.float32(gamma)) if gamma != 1.0 else out


def _add_noise(image: Array, std: float, rng: np.random.Generator) -> Array:
    """Gaussian noise of ``std`` of the full range, drawn as 256 quantiles (20 times quicker than exact normals)."""
    draw = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    if image.dtype == np.uint8:
        table = np.rint(_NOISE * np.float32(255 * std)).astype(np.int16)
        return np.clip(image.astype(np.int16) + table[draw], 0, 255).astype(np.uint8)
    return np.clip(image + (_NOISE * np.float32(std))[draw], 0, 1)
