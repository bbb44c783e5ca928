"""One labelled image through a model, and what its mask is worth: as a whole, or band by band where it is large."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from patchforest.data.layout import Case
from patchforest.data.load import Picture
from patchforest.data.pictures import open_picture
from patchforest.data.slides import SlidePicture
from patchforest.errors import InputError
from patchforest.infer.options import DEFAULTS, PredictOptions
from patchforest.infer.predict import Prediction, predict
from patchforest.infer.slide import predict_slide
from patchforest.io.array import ArraySource
from patchforest.io.scale import AS_STORED, Scale, thumbnail
from patchforest.models.bundle import Bundle
from patchforest.train.metrics import confusion_matrix
from patchforest.values import Array

OVERVIEW = 2048


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model said about a case.

    Attributes
    ----------
    confusion : (K, K) pixels by true and predicted class.
    tokens : leaves read.
    seconds : from pixels to mask; of large images reading them included.
    picture, prediction : what was scored; where ``shown`` says something they are to look at only: a smaller picture
        of an image too large for memory, a plane of a volume.
    """

    confusion: Array
    tokens: int
    seconds: float
    picture: Picture
    prediction: Prediction
    shown: str = ""


def scale_of_model(bundle: Bundle) -> Scale:
    """The scale at which a model's masks are compared where nothing else is said: its own."""
    spec = bundle.spec
    return AS_STORED if spec.mpp is None and spec.level is None else Scale(mpp=spec.mpp, level=spec.level)


def score_picture(
    bundle: Bundle,
    case: Case,
    *,
    label_map: Mapping[int | str, int] | None = None,
    scale: Scale = AS_STORED,
    options: PredictOptions = DEFAULTS,
) -> Scored:
    """Predict a case at a scale and count its pixels by true and predicted class.

    Parameters
    ----------
    options : how the model looks at it.

    Raises
    ------
    InputError : as of ``data.samples.open_picture`` and ``predict``.
    """
    spec, classes = bundle.spec, len(bundle.spec.classes)
    if spec.volume is not None:
        return _score_volume(bundle, case, label_map, options)
    picture = open_picture(
        case,
        label_map=label_map,
        num_classes=classes,
        intensity_window=spec.intensity_window,
        scale=scale,
        names=spec.classes,
    )
    if isinstance(picture, SlidePicture):
        return _score_slide(bundle, case, picture, options)
    try:
        prediction = predict(
            bundle,
            ArraySource(picture.image, case.image, mpp=picture.mpp),
            trees=options.trees,
            flips=options.flips,
            window=options.window,
            precision=options.precision,
            tissue=options.tissue,
        )
    except InputError as error:
        raise InputError(case.image, error.what, error.hint) from None
    confusion = confusion_matrix(prediction.mask, picture.label, classes)
    return Scored(confusion, prediction.tokens, prediction.seconds, picture, prediction)


def _score_slide(bundle: Bundle, case: Case, picture: SlidePicture, options: PredictOptions) -> Scored:
    classes, step = len(bundle.spec.classes), -(-max(picture.shape) // OVERVIEW)
    confusion, small = np.zeros((classes, classes), np.int64), []
    with tempfile.TemporaryDirectory(prefix="patchforest-") as folder:
        parts = predict_slide(
            bundle,
            picture.view,
            Path(folder) / "parts",
            path=case.image,
            trees=options.trees,
            flips=options.flips,
            window=options.window,
            precision=options.precision,
            tissue=options.tissue,
        )
        top = 0
        for mask in parts.masks():
            confusion += confusion_matrix(mask, picture.label.read(top, 0, *mask.shape), classes)
            small.append(mask[(step // 2 - top) % step :: step, step // 2 :: step])
            top += len(mask)
    mask = np.concatenate(small)
    label = picture.label.coarse(OVERVIEW)[: mask.shape[0], : mask.shape[1]]
    image = cv2.resize(thumbnail(picture.view, OVERVIEW), mask.shape[::-1], interpolation=cv2.INTER_AREA)
    shown = Prediction(mask, None, (), parts.tokens, parts.seconds)
    overview = Picture(image.reshape(*mask.shape, -1), np.ascontiguousarray(label))
    return Scored(confusion, parts.tokens, parts.seconds, overview, shown, f"{step} times smaller")


def _score_volume(
    bundle: Bundle, case: Case, label_map: Mapping[int | str, int] | None, options: PredictOptions
) -> Scored:
    """Of a volume; shown is the plane with most of the true foreground."""
    from patchforest.train.volume_scores import predict_case

    source, truth, said = predict_case(bundle, case, label_map, options)
    classes = len(bundle.spec.classes)
    plane = int(np.count_nonzero(truth, axis=(1, 2)).argmax())
    pixels = source.read((plane, 0, 0), (1, *source.shape[1:3]))[0]
    shown = Prediction(said.mask[plane], None, (), said.tokens, said.seconds)
    confusion = confusion_matrix(said.mask, truth, classes)
    where = f"plane {plane + 1} of {len(truth)}"
    return Scored(confusion, said.tokens, said.seconds, Picture(pixels, truth[plane]), shown, where)
