"""OME-Zarr by the Zarr library and by its specification's words; what may be replaced and what not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io import pyramid
from patchforest.io.open import open_image
from patchforest.io.pyramid import write_pyramid

zarr = pytest.importorskip("zarr", minversion="3", reason="Zarr 3 is not installed (extra wsi)")


@pytest.mark.parametrize(("kind", "channels"), [("mask", 1), ("image", 3), ("probability", 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_zarr_library_reads_every_level(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: Any, channels: int, dtype: type
) -> None:
    monkeypatch.setattr(pyramid, "_SMALLEST", 50)
    image = rng.integers(0, np.iinfo(dtype).max, (150, 201, channels), dtype, endpoint=True)
    image[:64] = 0  # chunks of nothing but the fill value are stored too
    path = tmp_path / "a.ome.zarr"
    write_pyramid(path, [image[:70], image[70:]], shape=(150, 201), dtype=dtype, mpp=0.25, kind=kind, tile=32)
    group = zarr.open_group(str(path), mode="r", zarr_format=2)
    image_metadata = group.attrs["multiscales"][0]
    assert image_metadata["version"] == "0.4"
    assert [axis["name"] for axis in image_metadata["axes"]] == list("yx" if channels == 1 else "cyx")
    assert {axis["unit"] for axis in image_metadata["axes"] if axis["type"] == "space"} == {"micrometer"}
    assert len(image_metadata["datasets"]) == 4
    halve = pyramid.halve_mask if kind == "mask" else pyramid.halve_mean
    for level, dataset in enumerate(image_metadata["datasets"]):
        array = group[dataset["path"]]
        expected = image[..., 0] if channels == 1 else np.moveaxis(image, -1, 0)
        assert array.dtype == dtype
        assert array.chunks[-2:] == (32, 32)
        np.testing.assert_array_equal(array[...], expected)
        changes = dataset["coordinateTransformations"]
        assert changes[0] == {"type": "scale", "scale": [1.0] * (channels > 1) + [0.25 * 2**level] * 2}
        shift = [part["translation"][-1] for part in changes[1:]]
        assert shift == ([] if level == 0 else [0.25 * (2**level - 1) / 2])
        image = halve(image)


def test_a_mask_is_an_image_label_with_names(tmp_path: Path) -> None:
    names = ("background", "Drüse")
    write_pyramid(tmp_path / "a.zarr", [np.ones((5, 5), "u1")], shape=(5, 5), dtype="u1", mpp=None, names=names)
    found = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text(encoding="utf-8"))
    assert found["image-label"]["properties"] == [{"label-value": k, "name": name} for k, name in enumerate(names)]
    assert found["multiscales"][0]["name"] == "a"
    assert "unit" not in json.dumps(found)
    assert open_image(tmp_path / "a.zarr").mpp is None


def test_a_picture_in_colours_says_so(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.zarr", [np.ones((5, 5, 3), "u2")], shape=(5, 5), dtype="u2", mpp=1, kind="image")
    found = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    assert [channel["color"] for channel in found["omero"]["channels"]] == ["FF0000", "00FF00", "0000FF"]
    assert found["omero"]["channels"][0]["window"]["max"] == 65535
    assert "image-label" not in found


def test_ours_is_replaced_and_no_other_folder(tmp_path: Path) -> None:
    def write(name: str, value: int, side: int) -> None:
        write_pyramid(tmp_path / name, [np.full((side, side), value, "u1")], shape=(side, side), dtype="u1", mpp=None)

    write("a.zarr", 1, 40)
    write("a.zarr", 2, 20)
    back = open_image(tmp_path / "a.zarr").read()
    assert back.shape == (20, 20, 1)
    assert (back == 2).all()
    (tmp_path / "empty.zarr").mkdir()
    write("empty.zarr", 3, 5)
    (tmp_path / "photos.zarr").mkdir()
    (tmp_path / "photos.zarr" / "one.jpg").write_bytes(b"dear")
    zarr.create_group(str(tmp_path / "other.zarr"), zarr_format=2).attrs["multiscales"] = []
    (tmp_path / "file.zarr").write_bytes(b"dear")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    for name in ("photos.zarr", "other.zarr", "file.zarr", "link.zarr"):
        with pytest.raises(InputError, match="another output path"):
            write(name, 4, 5)
    assert (tmp_path / "photos.zarr" / "one.jpg").read_bytes() == b"dear"
    listed = ["a.zarr", "empty.zarr", "file.zarr", "link.zarr", "other.zarr", "photos.zarr"]
    assert sorted(os.listdir(tmp_path)) == listed
