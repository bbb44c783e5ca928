"""Fixed colours that stay apart for most eyes: one a class, one a kind of error, one a tree level.

The first class colours are those of Okabe and Ito (2008), made for colour-blind readers; later ones step round the hue
circle by the golden angle, so any number of classes gets the same colours every time.
"""

from __future__ import annotations

import colorsys

import numpy as np

from patchforest.values import Array

_FIRST = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky
    (0, 158, 115),  # green
    (240, 228, 66),  # yellow
    (204, 121, 167),  # pink
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
)
BACKGROUND = (0, 0, 0)
IGNORED = (128, 128, 128)
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, CONFUSED = (0, 190, 120), (235, 70, 30), (70, 130, 255), (240, 228, 66)
ERROR_LEGEND = (
    ("right", TRUE_POSITIVE),
    ("too much (false positive)", FALSE_POSITIVE),
    ("missed (false negative)", FALSE_NEGATIVE),
    ("wrong class", CONFUSED),
)
_COARSE, _FINE = np.array([[86, 180, 233], [255, 225, 60]], np.float64)


def class_colours(num_classes: int) -> Array:
    """(num_classes, 3) uint8 RGB: black for class 0, the background, then one colour a class."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1; got {num_classes}")
    colours = [BACKGROUND, *_FIRST]
    for extra in range(num_classes - len(colours)):
        hue, light = (0.07 + extra * 0.381966) % 1.0, (0.62, 0.42, 0.78)[extra % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, light, 0.75)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return np.array(colours[:num_classes], np.uint8)


def level_colours(depth: int) -> Array:
    """(depth + 1, 3) uint8 RGB: blue for roots (level 0) to yellow for the finest level."""
    share = np.linspace(0.0, 1.0, depth + 1)[:, None]
    return np.rint(_COARSE * (1 - share) + _FINE * share).astype(np.uint8)
