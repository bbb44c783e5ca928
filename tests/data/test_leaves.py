"""Leaves of whole images as samples: those of the fixed forest, varied exactly, cut once."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchforest.data import leaves
from patchforest.data.augment import Augment
from patchforest.data.images import load_image
from patchforest.data.layout import Case, find_cases
from patchforest.data.leaves import LeafSamples
from patchforest.data.sequences import collate_sequences
from patchforest.errors import InputError
from patchforest.io.write import write_image
from patchforest.tree.cut import cut_forest
from patchforest.tree.gather import gather
from patchforest.values import ForestPolicy

POLICY = ForestPolicy(budget=20, criterion="gradient", root=32, fresh=False, window=64)
NUMBERS = {f"i{k}": k % 2 for k in range(4)}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    """Four pictures of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for k in range(4):
        write_image(folder / "images" / f"i{k}.png", rng.integers(0, 256, (50 + 12 * k, 64, 3), dtype=np.uint8))
    return find_cases(folder, require_labels=False).cases


def samples(cases: tuple[Case, ...], **changes: Any) -> LeafSamples:
    """Eight of them."""
    settings: dict[str, Any] = {"policy": POLICY, "patch": 8, "samples_per_epoch": 8, "seed": 7}
    return LeafSamples(cases, NUMBERS, **{**settings, **changes})


@pytest.mark.parametrize("downscale", [1, 2])
def test_they_are_the_leaves_of_the_fixed_forest(cases: tuple[Case, ...], downscale: int) -> None:
    found = samples(cases, downscale=downscale)
    seen = [found[k] for k in range(8)]
    assert sorted(s.id for s in seen) == sorted([*NUMBERS] * 2)
    for s in seen:
        image = load_image(next(c for c in cases if c.id == s.id), downscale=downscale)
        forest = cut_forest(image, POLICY)
        assert np.array_equal(s.origin, forest.origin)
        np.testing.assert_allclose(s.patches, gather(image, forest, 8).patches / 255, atol=1e-6)
        assert s.shape == image.shape[:2]
        assert all(f % 32 == 0 and f >= n for f, n in zip(s.frame, s.shape))
    batch = collate_sequences(seen)
    assert batch.patches.shape[0] == 8


def test_an_image_is_read_once(cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    real, read = leaves.open_image, []
    monkeypatch.setattr(leaves, "open_image", lambda path: read.append(path) or real(path))
    found = samples(cases)
    for k in [*range(8), 3, 1]:
        assert found[k].id
    assert len(read) == 4
    barely = samples(cases, cache_bytes=0)
    assert barely[0].id == barely[0].id
    assert len(read) == 6


def test_a_sample_is_a_function_of_seed_and_index(cases: tuple[Case, ...]) -> None:
    first, second = samples(cases, augment=Augment()), samples(cases, augment=Augment())
    for k in (7, 0, 4):
        assert np.array_equal(first[k].patches, second[k].patches)
        assert np.array_equal(first[k].origin, second[k].origin)
    again = pickle.loads(pickle.dumps(first))
    assert np.array_equal(again[4].patches, first[4].patches)
    assert not np.array_equal(samples(cases, augment=Augment(), seed=8)[4].patches, first[4].patches)
    plain = samples(cases)
    assert any(not np.array_equal(plain[k].origin, first[k].origin) for k in range(8))


def test_faults_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "i0.npy", np.full((40, 40, 3), -5, np.int16))
    case = find_cases(tmp_path, require_labels=False).cases
    with pytest.raises(InputError, match=r"i0\.npy.*no known range"):
        samples(case)[0]
    with pytest.raises(ValueError, match="must not be empty"):
        samples(())
    with pytest.raises(IndexError):
        samples(case)[8]
