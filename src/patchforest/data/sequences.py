"""Training samples from prepared items: whole images as sequences of patches, turned and toned, no pixel decoded.

Both changes are exact: a turned sequence is the sequence of the turned image, and a linear tone of averages is the
average of toned pixels. The whole sample is a function of (seed, epoch, index), as in ``data.samples``.

Dimension letters: B batch, L leaves, C channels, K outputs (+ 1 for what is known), n = 2 axes, p patch, q label grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from patchforest.data.augment import Augment
from patchforest.data.manifest import ITEMS, Prepared, PreparedCase
from patchforest.data.prepared import PreparedItem, item_name, read_item
from patchforest.tree.order import morton
from patchforest.values import Array


@dataclass(frozen=True, eq=False)
class LeafSequence:
    """The leaves of one image in Z-order.

    Attributes
    ----------
    origin : (L, 2) int64 corners in pixels of the frame: the image, filled up to whole roots on the far or, where it
        was mirrored, on the near side.
    size : (L,) int64 sides.
    shape, frame : (H, W) of the image and of the frame.
    offset : (row, column) of the frame in the image: 0, or negative where it reaches over the near side.
    cell : side of the smallest possible leaf.
    patches : (L, C, p, p) float32.
    shares : (L, 1 + K, q, q) float32, see ``PreparedItem``.
    """

    origin: Array
    size: Array
    shape: tuple[int, int]
    frame: tuple[int, int]
    offset: tuple[int, int]
    cell: int
    patches: Array
    shares: Array
    id: str


@dataclass(frozen=True, eq=False)
class SequenceBatch:
    """Sequences side by side, padded to the longest.

    Attributes
    ----------
    origin : (B, L, 2) int64; zero where padded.
    size : (B, L) int64; ``cell`` where padded.
    valid : (B, L) bool, False for padding.
    place : (B, 4) float32, offset of the frame (row, column), and its size.
    patches : (B, L, C, p, p) float32; zero where padded.
    shares : (B, L, 1 + K, q, q) float32; zero where padded.
    """

    origin: Tensor
    size: Tensor
    valid: Tensor
    place: Tensor
    patches: Tensor
    shares: Tensor
    cell: int
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SequenceBatch:
        """The batch with its tensors on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SequenceBatch:
        """The batch in page-locked memory (what ``DataLoader(pin_memory=True)`` calls)."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Any) -> SequenceBatch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


class SequenceSamples(Dataset[LeafSequence]):
    """``samples_per_epoch`` sequences of prepared cases, as equally many from each case as can be.

    Parameters
    ----------
    cases : of ``prepared``, none of them failed.
    seed : not negative.
    augment : flips, turns and linear tone (colour, brightness, contrast) of it are used; None for items as they are.
    cache_bytes : keep so many bytes of items in memory in each process; others are read and verified anew each time.

    A case of several variants gives one of them at random.
    """

    def __init__(
        self,
        prepared: Prepared,
        cases: Sequence[PreparedCase],
        *,
        samples_per_epoch: int,
        seed: int,
        augment: Augment | None = None,
        cache_bytes: int = 2 << 30,
    ) -> None:
        if not cases or samples_per_epoch < 1 or seed < 0:
            raise ValueError(
                "cases must not be empty, samples_per_epoch at least 1, seed not negative; got "
                f"{len(cases)}, {samples_per_epoch}, {seed}"
            )
        self.prepared, self.cases = prepared, tuple(cases)
        self.samples_per_epoch, self.seed, self.augment = samples_per_epoch, seed, augment
        self.cache_bytes = cache_bytes
        self._held: dict[tuple[int, int], PreparedItem] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}, "_held_bytes": 0}

    def __getitem__(self, index: int) -> LeafSequence:
        if not 0 <= index < self.samples_per_epoch:
            raise IndexError(f"sample {index} of {self.samples_per_epoch}")
        rng = np.random.default_rng([self.seed, 0, index])
        round_, position = divmod(index, len(self.cases))
        order = np.random.default_rng([self.seed, 0, round_, 1]).permutation(len(self.cases))
        number = int(order[position])
        variant = int(rng.integers(len(self.cases[number].sha256)))
        sequence = as_sequence(self._load(number, variant))
        return sequence if self.augment is None else vary(sequence, rng, self.augment)

    def _load(self, number: int, variant: int) -> PreparedItem:
        if (number, variant) in self._held:
            return self._held[number, variant]
        item = read_case(self.prepared, self.cases[number], variant)
        if self._held_bytes + item.nbytes <= self.cache_bytes:
            self._held[number, variant] = item
            self._held_bytes += item.nbytes
        return item


def read_case(prepared: Prepared, case: PreparedCase, variant: int = 0) -> PreparedItem:
    """An item of a prepared folder, verified; InputError where it is missing or not the one that was prepared."""
    return read_item(prepared.root / ITEMS / item_name(case.case.id, variant), case.sha256[variant])


def as_sequence(item: PreparedItem) -> LeafSequence:
    """The leaves of an item as they are."""
    forest = item.forest
    height, width = forest.shape
    rows, columns = (-(-s // forest.root) * forest.root for s in forest.shape)
    return LeafSequence(
        origin=forest.origin,
        size=forest.size,
        shape=(height, width),
        frame=(rows, columns),
        offset=(0, 0),
        cell=forest.cell,
        patches=item.patches,
        shares=item.shares,
        id=item.id,
    )


def vary(sequence: LeafSequence, rng: np.random.Generator, settings: Augment) -> LeafSequence:
    """One of the eight symmetries and a linear tone, drawn as ``data.augment`` draws them."""
    rows, columns = bool(rng.random() < settings.flip), bool(rng.random() < settings.flip)
    quarters = int(rng.integers(4)) if rng.random() < settings.turn else 0
    if quarters % 2:  # mirrored, then turned: the same as transposed, then mirrored along the other axes
        rows, columns = columns, rows
    rows, columns = rows ^ (quarters in (1, 2)), columns ^ (quarters in (2, 3))
    turned = mirror(transpose(sequence) if quarters % 2 else sequence, rows, columns)
    return replace(turned, patches=_tone(turned.patches, rng, settings))


def mirror(sequence: LeafSequence, rows: bool, columns: bool) -> LeafSequence:
    """The sequence of the image mirrored along rows, columns or both; its frame is mirrored with it."""
    origin, offset = sequence.origin.copy(), list(sequence.offset)
    patches, shares = sequence.patches, sequence.shares
    for axis, wanted in enumerate((rows, columns)):
        if wanted:
            length = sequence.frame[axis]
            origin[:, axis] = length - origin[:, axis] - sequence.size
            offset[axis] = sequence.shape[axis] - length if sequence.offset[axis] == 0 else 0
            patches, shares = np.flip(patches, axis + 2), np.flip(shares, axis + 2)
    return _in_order(replace(sequence, origin=origin, offset=(offset[0], offset[1]), patches=patches, shares=shares))


def transpose(sequence: LeafSequence) -> LeafSequence:
    """The sequence of the transposed image."""
    return _in_order(
        replace(
            sequence,
            origin=sequence.origin[:, ::-1],
            shape=sequence.shape[::-1],
            frame=sequence.frame[::-1],
            offset=sequence.offset[::-1],
            patches=sequence.patches.swapaxes(2, 3),
            shares=sequence.shares.swapaxes(2, 3),
        )
    )


def collate_sequences(samples: Sequence[LeafSequence]) -> SequenceBatch:
    """Sequences of any lengths and image sizes as a batch; ValueError where cell, patch or labels differ."""
    first = samples[0]
    kinds = {(s.cell, s.patches.shape[1:], s.shares.shape[1:]) for s in samples}
    if len(kinds) != 1:
        raise ValueError(f"sequences of a batch must share cell, patches and label grid; got {sorted(kinds)}")
    length = max(len(s.size) for s in samples)

    def padded(arrays: Sequence[Array], fill: int = 0) -> Tensor:
        out = np.full((len(arrays), length, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, array in zip(out, arrays):
            row[: len(array)] = array
        return torch.from_numpy(out)

    return SequenceBatch(
        origin=padded([s.origin for s in samples]),
        size=padded([s.size for s in samples], first.cell),
        valid=padded([np.ones(len(s.size), bool) for s in samples]),
        place=torch.tensor([(*s.offset, *s.frame) for s in samples], dtype=torch.float32),
        patches=padded([s.patches for s in samples]),
        shares=padded([s.shares for s in samples]),
        cell=first.cell,
        ids=tuple(s.id for s in samples),
    )


def _tone(patches: Array, rng: np.random.Generator, settings: Augment) -> Array:
    """patches · gain + offset by channel: colour, brightness and contrast of ``augment``; unclipped, so exact."""
    channels = patches.shape[1]
    gain: Array = np.ones(channels)
    offset: Array = np.zeros(channels)
    coloured, toned = rng.random() < settings.colour, rng.random() < settings.tone
    if coloured:
        gain = 1 + rng.uniform(-settings.gain, settings.gain, (channels,))
        offset = rng.uniform(-settings.offset, settings.offset, (channels,))
    if toned:
        slope = 1 + float(rng.uniform(-settings.contrast, settings.contrast))
        shift = float(rng.uniform(-settings.brightness, settings.brightness))
        gain *= slope
        offset = (offset - 0.5) * slope + 0.5 + shift
    if not (coloured or toned):
        return patches
    return patches * gain.astype(np.float32)[:, None, None] + offset.astype(np.float32)[:, None, None]


def _in_order(sequence: LeafSequence) -> LeafSequence:
    order = np.argsort(morton(sequence.origin // sequence.cell))
    return replace(
        sequence,
        origin=np.ascontiguousarray(sequence.origin[order]),
        size=sequence.size[order],
        patches=np.ascontiguousarray(sequence.patches[order]),
        shares=np.ascontiguousarray(sequence.shares[order]),
    )
