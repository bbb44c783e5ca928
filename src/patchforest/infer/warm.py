"""Compile the kernels of outlines, annotations and components now, as ``tree.warm`` does those of forests."""

from __future__ import annotations

import time

import numpy as np

from patchforest.infer.components import components_of, label_components
from patchforest.infer.polygons import polygons_of
from patchforest.io.annotation import Annotations


def warm_masks() -> float:
    """Use every kernel once, for the common types; returns the seconds it took."""
    start = time.perf_counter()
    square = np.array([[0.0, 0.0], [2, 0], [2, 2]])
    Annotations([(1, [square])], names=("a", "b")).read(0, 0, 2, 2)
    for dtype in (np.uint8, np.uint16):
        mask = np.eye(4, dtype=dtype)
        list(polygons_of([mask], width=4, probabilities=[np.full((4, 4), 200, np.uint8)]))
        for bands in ([mask], [mask[None]]):
            list(label_components(bands, components_of(bands)))
    return time.perf_counter() - start
