"""One case of a report: image, forest, truth, prediction and errors side by side, and its scores in a line."""

from __future__ import annotations

from collections.abc import Sequence

from patchforest.infer.predict import Prediction
from patchforest.report import palette
from patchforest.report.display import Window, display_image
from patchforest.report.forest_picture import draw_windows
from patchforest.report.html import MAX_WIDTH, Picture, Section
from patchforest.report.overlay import draw_errors, draw_overlay
from patchforest.values import Array

_LEGEND_CLASSES = 24  # a legend with more entries is left out


def case_section(
    title: str,
    image: Array,
    truth: Array | None,
    predictions: dict[str, Prediction],
    *,
    classes: Sequence[str],
    text: str = "",
    window: Window | None = None,
) -> Section:
    """A report section: the image, the truth, and forest, mask and errors of every model.

    Parameters
    ----------
    image : (H, W) or (H, W, C), any dtype.
    truth : (H, W) class numbers, negative = ignored; None where there is none: then no errors are shown.
    predictions : by the name of the model, "" where there is only one.
    classes : names by number, background first.
    """
    pictures = [Picture("image", display_image(image, max_side=2 * MAX_WIDTH, window=window))]
    if truth is not None:
        pictures.append(Picture("truth", draw_overlay(image, truth, window=window)))
    for name, prediction in predictions.items():
        pictures += prediction_pictures(name, image, truth, prediction, window=window)
    return Section(title=title, text=text, legend=legend(classes, errors=truth is not None), pictures=pictures)


def prediction_pictures(
    name: str, image: Array, truth: Array | None, prediction: Prediction, *, window: Window | None = None
) -> list[Picture]:
    """Forest (where the model has one), mask and, with a truth, errors of one model on one image."""
    before = f"{name}: " if name else ""
    pictures = []
    if any(forest is not None for _, forest in prediction.windows):
        drawn = draw_windows(image, prediction.windows, max_side=MAX_WIDTH, window=window)
        pictures.append(Picture(f"{before}forest, {prediction.tokens:,} tokens", drawn))
    pictures.append(Picture(f"{before}prediction", draw_overlay(image, prediction.mask, window=window)))
    if truth is not None:
        pictures.append(Picture(f"{before}errors", draw_errors(image, prediction.mask, truth, window=window)))
    return pictures


def legend(classes: Sequence[str], *, errors: bool) -> list[tuple[str, tuple[int, ...]]]:
    """(name, RGB) of every foreground class and, if asked for, of every kind of error."""
    colours = palette.class_colours(len(classes)).tolist()
    entries = [(name, tuple(rgb)) for name, rgb in list(zip(classes, colours))[1:]]
    kinds = [e for e in palette.ERROR_LEGEND if len(classes) > 2 or e[1] != palette.CONFUSED] if errors else []
    return (entries if len(entries) <= _LEGEND_CLASSES else []) + kinds
