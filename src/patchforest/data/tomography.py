"""Parallel-beam tomography on the CPU: projections, filtered back-projection, and the errors of a real scan.

The slice lies on a pixel grid with its centre at ((H - 1)/2, (W - 1)/2). A ray of angle θ and detector position s
(in pixels from the middle of the detector) is the line ``x cos θ + y sin θ = s`` with x along columns and y along
rows. Lengths are in pixels, attenuation is per pixel, a sinogram is (angles, detectors) of line integrals.

Reconstruction is linear, so the reconstruction of a noisy scan is the true slice seen through the point-spread
function plus the reconstruction of the *errors* of the sinogram. ``scan_errors`` + ``reconstruct`` give the second
term at full resolution; the first is a Gaussian blur. This costs one back-projection instead of a projection and a
back-projection, and only the streaks that too few angles cause in a noise-free scan are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from patchforest.values import Array

_BAND = 64  # rows added at a time: the working set stays in the cache of one core
_PHASES = 8  # sub-pixel steps of the back-projection


@dataclass(frozen=True)
class Scan:
    """How a slice is scanned and reconstructed.

    Attributes
    ----------
    noise : standard deviation of the photon noise in the middle of the reconstructed slice, in the slice's own units.
    ring : standard deviation of the ring artefacts half-way out, in the slice's own units (detector gains that the
        flat-field correction missed).
    blur : standard deviation of the Gaussian point-spread function in pixels.
    hardening : share of the middle ray's attenuation that beam hardening removes (cupping, shadows between stones).
    path : attenuation (natural logarithm) of a typical ray through the middle; 2.5 lets 8 % of the photons through.
    angles : number of projections over half a turn, or None for half as many as the longer side has pixels, 180 to
        720.
    """

    noise: float = 0.05
    ring: float = 0.012
    blur: float = 0.9
    hardening: float = 0.03
    path: float = 2.5
    angles: int | None = None

    def __post_init__(self) -> None:
        if min(self.noise, self.ring, self.blur, self.hardening) < 0 or self.path <= 0:
            raise ValueError(f"noise, ring, blur and hardening must be >= 0 and path > 0; got {self}")
        if self.angles is not None and self.angles < 1:
            raise ValueError(f"angles must be at least 1; got {self.angles}")

    def num_angles(self, shape: Sequence[int]) -> int:
        """Number of projections for a slice of this shape."""
        return self.angles if self.angles is not None else int(np.clip(max(shape) // 2, 180, 720))


def num_detectors(shape: Sequence[int]) -> int:
    """Detectors that cover a slice of this shape from every angle: the diagonal, made odd."""
    return int(np.ceil(np.hypot(shape[0], shape[1]))) // 2 * 2 + 3


def project(image: Array, angles: int) -> Array:
    """Line integrals of a slice (H, W): float32 (angles, ``num_detectors``), angles k·π/angles.

    Each projection is the sum over the columns of the slice turned by bilinear interpolation; outside is 0.
    """
    height, width = image.shape
    detectors = num_detectors(image.shape)
    middle = (detectors - 1) / 2
    source = np.ascontiguousarray(image, dtype=np.float32)
    sinogram = np.empty((angles, detectors), np.float32)
    for k in range(angles):
        c, s = np.cos(np.pi * k / angles), np.sin(np.pi * k / angles)
        turn = np.array(
            [
                [c, -s, (width - 1) / 2 - middle * (c - s)],
                [s, c, (height - 1) / 2 - middle * (s + c)],
            ]
        )
        turned = cv2.warpAffine(source, turn, (detectors, detectors), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        sinogram[k] = cv2.reduce(turned, 0, cv2.REDUCE_SUM)[0]
    return sinogram


def ramp_response(detectors: int, blur: float = 0.0) -> Array:
    """Frequency response (float64, for ``np.fft.rfft`` of the padded length) of the ramp filter at unit spacing.

    The discrete ramp h[0] = 1/4, h[odd n] = -1/(πn)², h[even n] = 0 (Ram-Lak; free of the offset that sampling |ω|
    would give), padded to at least twice the detectors, times a Gaussian of ``blur`` pixels.
    """
    length = 1 << int(np.ceil(np.log2(2 * detectors)))
    n = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.zeros(length)
    kernel[n % 2 == 1] = -1.0 / (np.pi * n[n % 2 == 1]) ** 2
    kernel[0] = 0.25
    omega = 2 * np.pi * np.fft.rfftfreq(length)
    return np.fft.rfft(kernel).real * np.exp(-0.5 * (omega * blur) ** 2)


def reconstruct(sinogram: Array, shape: Sequence[int], *, blur: float = 0.0) -> Array:
    """Filtered back-projection of (angles, detectors) onto a grid: float32 (H, W), attenuation per pixel.

    ``reconstruct(project(image, n), image.shape)`` returns the image up to sampling error. Linear interpolation
    between detectors; ``blur`` as in ``ramp_response``.
    """
    height, width = int(shape[0]), int(shape[1])
    angles, detectors = sinogram.shape
    response = ramp_response(detectors, blur)
    length = 2 * (len(response) - 1)
    filtered = np.fft.irfft(np.fft.rfft(sinogram, length, axis=1) * response, length, axis=1)[:, :detectors]
    theta = np.pi * np.arange(angles) / angles
    along_rows = np.zeros((height, width), np.float32)
    along_columns = np.zeros((width, height), np.float32)
    for row, cos, sin in zip(filtered * (np.pi / angles), np.cos(theta), np.sin(theta), strict=True):
        if abs(cos) >= abs(sin):
            _smear(along_rows, row, cos, sin)
        else:
            _smear(along_columns, row, sin, cos)
    return along_rows + along_columns.T


def _smear(out: Array, row: Array, along: float, across: float) -> None:
    """Add ``row`` at ``along``·column + ``across``·row to every pixel of ``out``; |along| >= |across|.

    Sampled once at steps of ``along`` (in ``_PHASES`` sub-steps, linear interpolation), a projection becomes one
    long row of pixels, and every row of the image is a contiguous slice of it, shifted by across/along a row.
    """
    height, width = out.shape
    shift = np.round((across / along) * (np.arange(height) - (height - 1) / 2) * _PHASES).astype(np.int64)
    step, phase = shift // _PHASES, shift % _PHASES
    first = int(step.min())
    columns = np.arange(int(step.max()) - first + width) + first - (width - 1) / 2
    at = along * (columns + np.arange(_PHASES)[:, None] / _PHASES) + (len(row) - 1) / 2
    table = np.interp(at, np.arange(len(row)), row).astype(np.float32)
    slices = np.lib.stride_tricks.sliding_window_view(table, width, axis=1)
    for top in range(0, height, _BAND):
        band = slice(top, top + _BAND)
        out[band] += slices[phase[band], step[band] - first]


def scan_errors(attenuation: Array, scan: Scan, rng: np.random.Generator) -> Array:
    """Errors of the sinogram of one scan: float32 (angles, detectors), in units of ``attenuation`` times pixels.

    Photon noise: counts are Poisson with mean I0·exp(-p), so thick rays are noisier. Rings: a gain a detector, the
    same for all angles. Hardening: minus a share of p². The line integrals p that they depend on are projected from
    a slice of at most 384 pixels a side, as the errors vary slowly with p; noise itself is drawn for every detector.
    """
    angles, detectors = scan.num_angles(attenuation.shape), num_detectors(attenuation.shape)
    rays = _rays(attenuation, angles, detectors)
    third = detectors // 3
    middle = float(rays[:, third : detectors - third].mean())
    if middle <= 0:
        return np.zeros((angles, detectors), np.float32)
    unit = scan.path / middle  # natural logarithms per unit of attenuation times pixel
    p = rays.astype(np.float64) * unit
    errors = -scan.hardening / scan.path * p * p
    gain = _noise_gain(detectors, scan.blur)
    if scan.noise > 0:
        sigma = scan.noise * unit * np.sqrt(angles / gain) / np.pi
        photons = np.exp(p[:, third : detectors - third]).mean() / sigma**2
        counts = rng.poisson(np.minimum(photons * np.exp(-p), 1e15))
        errors += -np.log(np.maximum(counts, 0.5) / photons) - p
    if scan.ring > 0:
        seen = max(attenuation.shape) / 2  # detectors that pass over a point half-way out: 2r, r = side/4
        sigma = scan.ring * unit * np.sqrt(seen / gain) / np.pi
        errors += sigma * rng.standard_normal(detectors)
    return (errors / unit).astype(np.float32)


def _rays(attenuation: Array, angles: int, detectors: int) -> Array:
    """Line integrals (angles, detectors) from a reduced slice, detectors filled in by linear interpolation."""
    height, width = attenuation.shape
    factor = max(1.0, max(height, width) / 384)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = cv2.resize(attenuation.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    coarse = project(small, angles) * np.float32(factor)
    position = (np.arange(detectors) - (detectors - 1) / 2) / factor + (coarse.shape[1] - 1) / 2
    left = np.clip(np.floor(position).astype(np.int64), 0, coarse.shape[1] - 2)
    weight = np.clip(position - left, 0, 1).astype(np.float32)
    return coarse[:, left] * (1 - weight) + coarse[:, left + 1] * weight


def _noise_gain(detectors: int, blur: float) -> float:
    """Sum of squares of the reconstruction kernel, averaged over the interpolation between two detectors."""
    response = ramp_response(detectors, blur)
    omega = np.linspace(0, np.pi, len(response))
    return float(np.mean(response**2 * (2 + np.cos(omega)) / 3))
