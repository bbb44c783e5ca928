"""Label files: the numbers come back, whatever bands they came in; what does not fit leaves no file."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from patchforest.infer.label_file import write_labels
from patchforest.io.open import open_image


@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (300, 700), (513, 5)])
def test_numbers_of_an_image_come_back(rng: np.random.Generator, tmp_path: Path, shape: tuple[int, int]) -> None:
    labels = rng.integers(0, 1 << 32, shape, dtype=np.uint32)
    places = np.sort(rng.integers(0, shape[0] + 1, 3))
    write_labels(tmp_path / "l.tif", [b for b in np.split(labels, places) if len(b)], shape)
    assert np.array_equal(tifffile.imread(tmp_path / "l.tif"), labels)
    assert np.array_equal(open_image(tmp_path / "l.tif").read()[:, :, 0], labels)


def test_a_volume_is_a_page_a_plane(rng: np.random.Generator, tmp_path: Path) -> None:
    labels = rng.integers(0, 9, (5, 30, 270), dtype=np.uint32)
    write_labels(tmp_path / "l.tif", [labels[:2], labels[2:]], labels.shape)
    assert np.array_equal(tifffile.imread(tmp_path / "l.tif"), labels)


@pytest.mark.parametrize("heights", [(3,), (3, 8), (12,)])
def test_too_few_or_too_many_rows_leave_no_file(tmp_path: Path, heights: tuple[int, ...]) -> None:
    for shape in ((10, 6), (10, 6, 6)):
        with pytest.raises(ValueError, match="promised"):
            write_labels(tmp_path / "l.tif", [np.zeros((h, *shape[1:]), np.uint32) for h in heights], shape)
    with pytest.raises(ValueError, match="promised"):
        write_labels(tmp_path / "l.tif", [np.zeros((10, 7), np.uint32)], (10, 6))
    assert list(tmp_path.iterdir()) == []
