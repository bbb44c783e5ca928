"""Projection and back-projection are inverse, linear and exact on a disk; scan errors are as large as they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from patchforest.data.tomography import Scan, num_detectors, project, ramp_response, reconstruct, scan_errors


def disk(shape: tuple[int, int], row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2
    fine = np.hypot(x - column, y - row)
    return np.clip(radius - fine + 0.5, 0, 1).astype(np.float32)


def test_projection_of_a_disk_is_its_chord_length() -> None:
    sinogram = project(disk((96, 96), 10, -15, 20), 45)
    s = np.arange(num_detectors((96, 96))) - (num_detectors((96, 96)) - 1) / 2
    for k in (0, 11, 22, 40):
        centre = -15 * np.cos(np.pi * k / 45) + 10 * np.sin(np.pi * k / 45)
        chord = 2 * np.sqrt(np.maximum(20**2 - (s - centre) ** 2, 0))
        difference = np.abs(sinogram[k] - chord)
        assert difference[np.abs(s - centre) < 18].max() < 0.8
        assert difference[np.abs(s - centre) > 22].max(initial=0) < 1e-3
        assert sinogram[k].sum() == pytest.approx(np.pi * 400, rel=0.01)


@pytest.mark.parametrize("shape", [(128, 128), (100, 141), (141, 60)])
def test_reconstruction_of_a_disk_within_one_percent(shape: tuple[int, int]) -> None:
    truth = disk(shape, -12, 9, 14)
    found = reconstruct(project(truth, 240), shape)
    inner, outer = disk(shape, -12, 9, 11) == 1, disk(shape, -12, 9, 18) == 0
    assert found.shape == shape
    assert found[inner].mean() == pytest.approx(1, abs=0.01)
    assert abs(found[outer].mean()) < 0.01
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.05  # a shift by one pixel gives 0.1


def test_reconstruction_is_linear_and_places_things_exactly(rng: np.random.Generator) -> None:
    a, b = rng.random((30, num_detectors((40, 40)))), rng.random((30, num_detectors((40, 40))))
    both = reconstruct(2 * a - b, (40, 40))
    assert np.allclose(both, 2 * reconstruct(a, (40, 40)) - reconstruct(b, (40, 40)), atol=1e-5)
    spot = np.zeros((65, 49), np.float32)
    spot[50, 7] = 1
    assert np.unravel_index(reconstruct(project(spot, 180), spot.shape).argmax(), spot.shape) == (50, 7)


def test_ramp_filter_has_no_mean_and_grows_with_frequency() -> None:
    response = ramp_response(200)
    assert abs(response[0]) < 1e-3
    assert np.allclose(response, np.linspace(0, 0.5, len(response)), atol=1e-3)
    assert ramp_response(200, blur=2.0)[-1] < 1e-6


def test_noise_and_rings_are_as_large_as_asked(rng: np.random.Generator) -> None:
    flat = np.full((256, 256), 0.6, np.float32)
    quiet = Scan(noise=0, ring=0, hardening=0, angles=256)
    assert not scan_errors(flat, quiet, rng).any()
    noisy = reconstruct(scan_errors(flat, replace(quiet, noise=0.05), rng), flat.shape, blur=quiet.blur)
    assert noisy[96:160, 96:160].std() == pytest.approx(0.05, rel=0.2)
    rings = reconstruct(scan_errors(flat, replace(quiet, ring=0.02), rng), flat.shape, blur=quiet.blur)
    assert rings[60:68].std() == pytest.approx(0.02, rel=0.35)
    for picture, low, high in ((rings, 0.9, 1.0), (noisy, -0.1, 0.1)):  # half rings, for half a turn: mirror images
        assert low < np.corrcoef(picture.ravel(), picture[:, ::-1].ravel())[0, 1] <= high


def test_errors_added_to_the_slice_equal_a_whole_scan(rng: np.random.Generator) -> None:
    truth = disk((120, 120), 5, 8, 30) * 0.8
    scan = Scan(noise=0.02, angles=300, blur=1.5)
    errors = scan_errors(truth, scan, rng)
    whole = reconstruct(project(truth, 300) + errors, truth.shape, blur=1.5)
    parts = reconstruct(project(truth, 300), truth.shape, blur=1.5) + reconstruct(errors, truth.shape, blur=1.5)
    assert np.abs(whole - parts).max() < 1e-4


def test_hardening_dims_the_middle_and_an_empty_slice_has_no_errors(rng: np.random.Generator) -> None:
    flat = disk((128, 128), 0, 0, 55)
    change = reconstruct(scan_errors(flat, Scan(noise=0, ring=0, hardening=0.1), rng), flat.shape)
    assert change[58:70, 58:70].mean() < change[flat > 0.9][:200].mean() - 0.02
    assert not scan_errors(np.zeros((32, 32), np.float32), Scan(), rng).any()


@pytest.mark.parametrize("wrong", [{"noise": -1.0}, {"path": 0.0}, {"angles": 0}])
def test_impossible_scans_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Scan(**wrong)  # type: ignore[arg-type]
