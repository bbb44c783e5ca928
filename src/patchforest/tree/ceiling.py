"""The label ceiling: the best Dice that any model can reach through a forest whose leaves emit q × q values.

Print it beside every score. On public data doubling q is worth four times the tokens, and a forest that looks in the
wrong place caps the score before any learning.
"""

from __future__ import annotations

import numpy as np

from patchforest.tree.gather import gather
from patchforest.values import Array, Forest


def label_ceiling(mask: Array, forest: Forest, q: int, *, num_classes: int | None = None) -> float:
    """Best reachable Dice of a full-resolution mask, 0 to 1, when each leaf paints q × q constant blocks.

    Blocks are foreground where their true share of it is above the threshold that gives the highest Dice: the
    optimum over all masks of such blocks. Several classes: the mean of that optimum over the foreground classes
    present, each by itself, which no mask can beat and not every mask can reach. Painting bilinearly smooths the
    steps between blocks and can end a little above.

    Parameters
    ----------
    mask : (H, W) class numbers, 0 is background; negative pixels are ignored.
    q : output side per leaf; leaves of side ≤ q cost nothing.
    num_classes : including background, so at least 2; default the largest label plus one.

    Returns 1.0 for a mask without foreground.

    Raises ValueError for a mask of another size than the forest's image, or class numbers of ``num_classes`` and more.
    """
    classes = int(mask.max()) + 1 if num_classes is None else num_classes
    if num_classes is not None and (num_classes < 2 or int(mask.max()) >= num_classes):
        raise ValueError(
            f"num_classes counts background too and must exceed every label (largest {int(mask.max())}); "
            f"got {num_classes}"
        )
    if mask.shape != forest.shape:
        raise ValueError(f"mask must be {forest.shape} like the forest's image; got {mask.shape}")
    shares, area = label_shares(mask, forest, q, max(classes, 2))
    present = [k for k in range(1, classes) if (mask == k).any()]
    if not present:
        return 1.0
    return float(np.mean([_best_dice(shares[:, k].ravel(), area.ravel()) for k in present]))


def label_shares(mask: Array, forest: Forest, q: int, classes: int) -> tuple[Array, Array]:
    """Share of every class in every block, and the block's area inside the image.

    Returns
    -------
    (L, classes, q, ...) float32, (L, q, ...) float64 in pixels; ignored (negative) and outside pixels count in neither.
    """
    largest = int(forest.size.max())
    pad = [(0, -(-s // largest) * largest - s) for s in forest.shape]
    inside = np.pad(mask >= 0, pad)
    labels = np.pad(mask, pad)
    whole = Forest(forest.origin, forest.size, forest.level, inside.shape, forest.root, forest.cell)
    known = gather(inside.astype(np.float32), whole, q).patches[:, 0]
    shares = np.empty((len(forest), classes, *known.shape[1:]), np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        for k in range(classes):
            part = gather((inside & (labels == k)).astype(np.float32), whole, q).patches[:, 0]
            shares[:, k] = np.where(known > 0, part / known, 0.0)
    block = (forest.size / q) ** forest.ndim
    return shares, known.astype(np.float64) * block.reshape((-1,) + (1,) * forest.ndim)


def _best_dice(share: Array, area: Array) -> float:
    order = np.argsort(-share, kind="stable")
    truth = np.cumsum((share * area)[order], dtype=np.float64)
    predicted = np.cumsum(area[order], dtype=np.float64)
    return float(np.max(2 * truth / np.maximum(predicted + truth[-1], 1e-12)))
