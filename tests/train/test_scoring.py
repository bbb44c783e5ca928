"""Scores of an image in memory and of one read in bands are the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patchforest.data import pictures
from patchforest.errors import InputError
from patchforest.infer.options import PredictOptions
from patchforest.io.scale import AS_STORED, Scale
from patchforest.train.metrics import confusion_matrix, score_case, score_counts
from patchforest.train.scoring import scale_of_model, score_picture
from tests.data.test_slides import case, slide
from tests.infer.fakes import Bright, fake, tiny


@pytest.mark.parametrize("scale", [AS_STORED, Scale(mpp=1.0)])
def test_bands_count_what_the_whole_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: Scale) -> None:
    slide(tmp_path, shape=(240, 320))
    bundle, options = tiny("shf"), PredictOptions(window=100)
    whole = score_picture(bundle, case(tmp_path), scale=scale, options=options)
    assert not whole.shown
    assert np.array_equal(whole.confusion, confusion_matrix(whole.prediction.mask, whole.picture.label, 2))
    monkeypatch.setattr(pictures, "LARGE", 1000)
    monkeypatch.setattr("patchforest.train.scoring.OVERVIEW", 40)
    banded = score_picture(bundle, case(tmp_path), scale=scale, options=options)
    assert np.array_equal(banded.confusion, whole.confusion)
    assert banded.tokens == whole.tokens
    step = 8 if scale == AS_STORED else 4
    assert banded.shown == f"{step} times smaller"
    assert np.array_equal(banded.prediction.mask, whole.prediction.mask[step // 2 :: step, step // 2 :: step])
    assert np.array_equal(banded.picture.label, whole.picture.label[step // 2 :: step, step // 2 :: step])
    assert banded.picture.image.shape[:2] == banded.prediction.mask.shape


def test_a_model_of_a_scale_is_scored_there(tmp_path: Path) -> None:
    slide(tmp_path)
    bundle = fake(Bright(), mpp=1.0)
    assert scale_of_model(bundle) == Scale(mpp=1.0)
    scored = score_picture(bundle, case(tmp_path), scale=scale_of_model(bundle))
    assert scored.prediction.mask.shape == (300, 400)
    assert scale_of_model(fake(Bright())) == AS_STORED


def test_counts_alone_give_dice_and_iou(rng: np.random.Generator) -> None:
    truth, found = rng.integers(0, 3, (2, 30, 40))
    truth[truth == 2] = found[found == 2] = 0
    counts = score_counts(confusion_matrix(found, truth, 3))
    full = score_case(found, truth, 3)
    assert [(c.dice, c.iou, c.empty) for c in counts] == [(c.dice, c.iou, c.empty) for c in full]
    assert all(c.boundary_f is None and c.hd95 is None for c in counts)


def test_faults_name_the_image(tmp_path: Path) -> None:
    slide(tmp_path, shape=(64, 80))
    broken = fake(Bright(), mpp=1.0)
    assert score_picture(tiny("shf"), case(tmp_path)).tokens > 0
    (tmp_path / "masks" / "s.tif").write_bytes(b"no mask")
    with pytest.raises(InputError, match=r"masks/s\.tif"):
        score_picture(broken, case(tmp_path))
