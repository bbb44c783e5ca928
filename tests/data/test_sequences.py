"""A turned sequence is that of the turned image; batches pad without a trace; samples are functions of seeds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from patchforest.data.augment import Augment
from patchforest.data.layout import Case, find_cases
from patchforest.data.manifest import Prepared, read_manifest
from patchforest.data.prepare import JobOptions, prepare
from patchforest.data.prepare_item import cut_item
from patchforest.data.sequences import (
    LeafSequence,
    SequenceSamples,
    as_sequence,
    collate_sequences,
    mirror,
    read_case,
    transpose,
    vary,
)
from patchforest.errors import InputError
from patchforest.values import Array
from tests.data.prepared_data import SETTINGS, make_images

SHAPES = [(64, 64), (53, 91), (40, 64), (130, 67)]
NOTHING = Augment(flip=0, turn=0, affine=0, colour=0, tone=0, noise=0, blur=0)


def random_sequence(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array, LeafSequence]:
    """An image in [0, 1], its label and the sequence of both."""
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    image[: shape[0] // 2] //= 8
    label = rng.integers(0, 2, shape).astype(np.uint8)
    item = cut_item(Case("x", Path(), Path()), SETTINGS, 0, image, label, {})
    return image / 255, label, as_sequence(item)


def expected(image: Array, label: Array, shape: tuple[int, int], frame: tuple[int, int], turn: object) -> list[Array]:
    """The filled-up frame (pixels, inside, foreground), changed by ``turn``."""
    over = [(0, f - s) for f, s in zip(frame, shape)]
    planes = [np.pad(image, [*over, (0, 0)], mode="edge"), np.pad(np.ones(shape), over), np.pad(label, over)]
    return [turn(p) for p in planes]  # type: ignore[operator]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("rows", "columns", "across"), list(itertools.product([False, True], repeat=3)))
def test_all_eight_symmetries_are_exact(
    rng: np.random.Generator, shape: tuple[int, int], rows: bool, columns: bool, across: bool
) -> None:
    def turn(plane: Array) -> Array:
        plane = plane.swapaxes(0, 1) if across else plane
        return np.flip(plane, [a for a, wanted in enumerate((rows, columns)) if wanted])

    image, label, sequence = random_sequence(rng, shape)
    got = mirror(transpose(sequence) if across else sequence, rows, columns)
    pixels, inside, truth = expected(image, label, shape, sequence.frame, turn)
    for (row, column), size, patch, share in zip(got.origin, got.size, got.patches, got.shares):
        box = (slice(row, row + size), slice(column, column + size))
        assert row >= 0 <= column
        mean = pixels[box].reshape(8, size // 8, 8, size // 8, 3).mean((1, 3))
        np.testing.assert_allclose(patch, mean.transpose(2, 0, 1), atol=1e-6)
        for plane, value in zip((inside, truth), share):
            block = np.kron(plane[box], np.ones((2, 2))) if size == 8 else plane[box]
            np.testing.assert_array_equal(value, block.reshape(16, len(block) // 16, 16, -1).mean((1, 3)))
    top, left = (-o for o in got.offset)
    np.testing.assert_array_equal(pixels[top : top + got.shape[0], left : left + got.shape[1]], turn(image))
    assert got.frame == pixels.shape[:2]
    keys = [int("".join(a + b for a, b in zip(f"{r:012b}", f"{c:012b}")), 2) for r, c in got.origin // 8]
    assert keys == sorted(set(keys))


@pytest.mark.parametrize("shape", SHAPES)
def test_symmetries_undo_themselves(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    _, _, sequence = random_sequence(rng, shape)
    for there in (lambda s: mirror(s, True, False), lambda s: mirror(s, True, True), transpose):
        back = there(there(sequence))
        for name in ("origin", "size", "patches", "shares"):
            np.testing.assert_array_equal(getattr(back, name), getattr(sequence, name))
        assert (back.shape, back.frame, back.offset) == (sequence.shape, sequence.frame, sequence.offset)


def test_vary_turns_as_augment_does(rng: np.random.Generator) -> None:
    """Flips, then quarter turns, for the same draws: compared by the pixels that come out."""
    image, _, sequence = random_sequence(rng, (64, 64))
    settings = replace(NOTHING, flip=0.5, turn=0.75)
    seen = set()
    for seed in range(150):
        draws = np.random.default_rng(seed)
        turned = image
        flips = [draws.random() < 0.5 for _ in range(2)]
        turned = np.flip(turned, [a for a in (0, 1) if flips[a]])
        quarters = int(draws.integers(4)) if draws.random() < 0.75 else 0
        turned = np.rot90(turned, quarters)
        got = vary(sequence, np.random.default_rng(seed), settings)
        seen.add((*flips, quarters))
        for (row, column), size, patch in zip(got.origin, got.size, got.patches):
            mean = turned[row : row + size, column : column + size].reshape(8, size // 8, 8, size // 8, 3).mean((1, 3))
            np.testing.assert_allclose(patch, mean.transpose(2, 0, 1), atol=1e-6)
    assert len(seen) == 16


def test_a_tone_is_one_line_a_channel_for_all_leaves(rng: np.random.Generator) -> None:
    _, _, sequence = random_sequence(rng, (64, 64))
    settings = replace(NOTHING, colour=1.0, tone=1.0)
    got = vary(sequence, np.random.default_rng(1), settings).patches
    gains = []
    for before, after in zip(sequence.patches.swapaxes(0, 1), got.swapaxes(0, 1)):
        gain, offset = np.polyfit(before.ravel(), after.ravel(), 1)
        np.testing.assert_allclose(after, gain * before + offset, atol=1e-5)
        assert 0.7 < gain < 1.35
        gains.append(gain)
    assert len(set(np.round(gains, 4))) == 3
    assert vary(sequence, np.random.default_rng(1), NOTHING).patches is not got
    np.testing.assert_array_equal(vary(sequence, np.random.default_rng(1), NOTHING).patches, sequence.patches)


def test_batches_of_several_sizes_are_padded(rng: np.random.Generator) -> None:
    sequences = [random_sequence(rng, shape)[2] for shape in SHAPES]
    batch = collate_sequences(sequences)
    assert len(batch) == 4
    for row, sequence in enumerate(sequences):
        length = len(sequence.size)
        assert int(batch.valid[row].sum()) == length
        for name in ("origin", "size", "patches", "shares"):
            values = getattr(batch, name)[row]
            np.testing.assert_array_equal(values[:length], getattr(sequence, name))
            assert (values[length:] == (sequence.cell if name == "size" else 0)).all()
    moved = batch.to("cpu")
    assert moved.ids == batch.ids
    assert torch.equal(moved.shares, batch.shares)
    odd = replace(sequences[0], patches=sequences[0].patches[:, :1])
    with pytest.raises(ValueError, match="must share cell, patches and label grid"):
        collate_sequences([sequences[1], odd])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Five cases of two variants."""
    folder = tmp_path_factory.mktemp("prepared")
    found = find_cases(make_images(folder / "data", 5, bad=[2]))
    settings = replace(SETTINGS, forest=replace(SETTINGS.forest, criterion="random"))
    prepare(found, folder / "out", settings, variants=2, options=JobOptions(workers=1))
    return read_manifest(folder / "out")


def samples(prepared: Prepared, **options: object) -> SequenceSamples:
    cases = [c for c in prepared.cases if c.failed is None]
    settings = {"samples_per_epoch": 1000, "seed": 4, "augment": Augment(), **options}
    return SequenceSamples(prepared, cases, **settings)  # type: ignore[arg-type]


def test_samples_are_functions_of_seed_and_index(prepared: Prepared) -> None:
    first, again, uncached = samples(prepared), samples(prepared), samples(prepared, cache_bytes=0)
    for index in (7, 0, 999, 7):
        got = [s[index] for s in (first, again, uncached)]
        for other in got[1:]:
            assert other.id == got[0].id
            for name in ("origin", "size", "patches", "shares"):
                np.testing.assert_array_equal(getattr(other, name), getattr(got[0], name))
    assert uncached._held == {}
    assert len(first._held) > 0
    other = samples(prepared, seed=5)
    assert [other[i].id for i in range(20)] != [first[i].id for i in range(20)]


def test_every_case_comes_equally_often_in_all_its_variants(prepared: Prepared) -> None:
    plain = samples(prepared, augment=None)
    ids = [plain[i].id for i in range(40)]
    assert {ids.count(i) for i in set(ids)} == {10}
    assert len(set(ids)) == 4
    kinds = {(s.id, s.patches.tobytes()) for s in (plain[i] for i in range(40))}
    assert len(kinds) == 8
    with pytest.raises(IndexError):
        plain[1000]


def test_a_changed_item_is_refused(prepared: Prepared) -> None:
    case = prepared.cases[0]
    with pytest.raises(InputError, match=r"not the item that prepared\.json lists"):
        read_case(prepared, replace(case, sha256=(case.sha256[1],)))
    with pytest.raises(ValueError, match="must not be empty"):
        SequenceSamples(prepared, [], samples_per_epoch=1, seed=0)
