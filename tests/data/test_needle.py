"""The needle task: exact labels, the same pixels in any window, and nothing but the evidence tells the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchforest.data.layout import find_cases
from patchforest.data.needle import DISTRACTORS, NEEDLE_CLASSES, PATTERNS, NeedleImage, write_needle
from patchforest.data.targets import read_targets
from patchforest.errors import InputError
from patchforest.tree.cut import cut_forest
from patchforest.values import Array, Forest, ForestPolicy, ImageSource

SIDE = 320


def blocks(image: Array, factor: int) -> Array:
    """Means of factor × factor pixels."""
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    whole = image[: rows * factor, : columns * factor].astype(float)
    return whole.reshape(rows, factor, columns, factor, 3).mean((1, 3))


def smallest_leaf(forest: Forest, centre: tuple[float, float]) -> int:
    """Side of the leaf over a point."""
    inside = ((forest.origin <= centre) & (np.array(centre) < forest.origin + forest.size[:, None])).all(1)
    return int(forest.size[inside][0])


def test_any_window_shows_the_same_pixels(rng: np.random.Generator) -> None:
    image = NeedleImage(SIDE, 0, seed=3)
    assert isinstance(image, ImageSource)
    whole = image.read()
    assert whole.shape == image.shape == (SIDE, SIDE, 3)
    assert whole.dtype == np.uint8
    for _ in range(8):
        row, column = rng.integers(0, SIDE - 40, 2)
        height, width = rng.integers(1, 41, 2)
        part = image.read(0, row, column, height, width)
        assert np.array_equal(part, whole[row : row + height, column : column + width])
    assert np.array_equal(image.read(0, 250, 250), whole[250:, 250:])
    assert np.array_equal(NeedleImage(SIDE, 0, seed=3).read(), whole)
    assert not np.array_equal(NeedleImage(SIDE, 0, seed=4).read(), whole)


def test_texture_has_no_seams() -> None:
    """Steps across the border of two tiles are no larger than elsewhere."""
    pixels = NeedleImage(512, 0, seed=1, evidence=0, distractors=(0, 0)).read().astype(float)
    steps = np.abs(np.diff(pixels, axis=1)).mean((0, 2))
    assert steps[255] < 1.5 * np.median(steps)


def test_the_classes_of_a_seed_differ_in_the_evidence_alone() -> None:
    first, second = (NeedleImage(SIDE, k, seed=5) for k in (0, 1))
    assert [m.centre for m in first.marks] == [m.centre for m in second.marks]
    for a, b in zip(first.marks, second.marks):
        assert (a.pattern == b.pattern) == (not a.evidence)
        assert a.pattern in (NEEDLE_CLASSES[0] if a.evidence else DISTRACTORS)
        assert b.pattern in (NEEDLE_CLASSES[1] if b.evidence else DISTRACTORS)
    changed = np.argwhere((first.read() != second.read()).any(2))
    assert len(changed) > 400
    evidence = [m for m in first.marks if m.evidence]
    assert len(evidence) == 4
    reach = [np.hypot(*(changed + 0.5 - m.centre).T) - m.radius for m in evidence]
    assert np.min(reach, axis=0).max() < 1.5


def test_down_scaling_loses_the_evidence() -> None:
    """Blocks of the size of a mark differ by less than the tissue around them does; pixels by far more."""
    near, far, ground = [], [], []
    for seed in range(4):
        a, b = (NeedleImage(SIDE, k, seed=seed).read() for k in (0, 1))
        near.append(np.abs(a.astype(float) - b).max())
        far.append(np.abs(blocks(a, 32) - blocks(b, 32)).max())
        ground.append(blocks(a, 32).std((0, 1)).mean())
    assert min(near) > 80
    assert max(far) < 0.8 * np.mean(ground)


def test_mean_colour_is_at_chance() -> None:
    """No threshold on any mean of an image does better than chance, of either class or of marks alone."""
    means = np.array(
        [[NeedleImage(192, k, seed=s, distractors=(2, 4)).read().mean((0, 1)) for s in range(40)] for k in (0, 1)]
    )
    for channel in range(3):
        above = means[0, :, channel][:, None] > means[1, :, channel][None, :]
        assert abs(above.mean() - 0.5) < 0.08
        assert np.abs(means[0, :, channel] - means[1, :, channel]).max() < 0.02 * means[..., channel].std() + 0.05


@pytest.mark.parametrize("name", list(PATTERNS))
def test_every_pattern_covers_half_a_disc(name: str) -> None:
    axis = (np.arange(2000) + 0.5) / 1000 - 1
    r = np.hypot(axis[:, None], axis[None, :])
    angle = np.arctan2(axis[:, None], axis[None, :]) % (2 * np.pi)
    cover = PATTERNS[name](r, angle).astype(float)
    assert not cover[r >= 1].any()
    assert cover[r < 1].mean() == pytest.approx(0.5, abs=2e-3)


def test_a_forest_finds_the_marks_and_noise_hides_them() -> None:
    policy = ForestPolicy(criterion="canny", budget=180, cell=8, root=64)
    for noise, largest in ((0.0, 16), (40.0, 64)):
        image = NeedleImage(640, 1, seed=2, noise=noise)
        forest = cut_forest(image.read(), policy)
        sides = [smallest_leaf(forest, (m.centre[0] + m.radius / 2, m.centre[1])) for m in image.marks if m.evidence]
        assert max(sides) <= largest
        assert (np.median(sides) <= 16) == (noise == 0)


def test_folders_are_written_once_and_read_back(tmp_path: Path) -> None:
    folder = write_needle(tmp_path / "a", 4, 96, seed=1, evidence=1, distractors=(0, 1))
    cases = find_cases(folder, require_labels=False).cases
    targets = read_targets(folder / "targets.csv", "class", cases, classes=NEEDLE_CLASSES)
    assert [targets.numbers[c.id] for c in cases] == [0, 1, 0, 1]
    before = cases[0].image.stat().st_mtime_ns
    write_needle(folder, 4, 96, seed=1, evidence=1, distractors=(0, 1))
    assert cases[0].image.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another data set"):
        write_needle(folder, 4, 96, seed=2, evidence=1, distractors=(0, 1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"label": 2}, "0 to 1"),
        ({"side": 20}, "at least 64"),
        ({"noise": -1.0}, "not negative"),
        ({"diameter": (30.0, 20.0)}, "diameter"),
        ({"evidence": 400}, "no room"),
    ],
)
def test_wrong_settings_say_why(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        NeedleImage(**{"side": 96, "label": 0, "seed": 0, **change})


def test_windows_outside_are_refused() -> None:
    with pytest.raises(ValueError, match="no window"):
        NeedleImage(96, 0, seed=0, evidence=0, distractors=(0, 0)).read(0, 90, 0, 10, 10)
