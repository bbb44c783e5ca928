"""Masks to QuPath's GeoJSON and back, the same in every pixel; and files that others wrote or that are damaged."""

from __future__ import annotations

import gzip
import json
import os
import random
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.infer.polygons import Polygon, polygons_of
from patchforest.io.geojson import read_geojson, write_geojson
from patchforest.report.palette import class_colours

NAMES = ("background", "tumour", "stroma", "müßig 漢", "d")


def random_mask(rng: np.random.Generator) -> np.ndarray:
    shape = tuple(rng.integers(1, 40, 2))
    return (rng.integers(1, 5, shape) * (rng.random(shape) < rng.uniform())).astype(np.uint8)


def written(path: Path, mask: np.ndarray, **settings: object) -> Path:
    polygons = polygons_of([mask], width=mask.shape[1], probabilities=settings.pop("probabilities", None))
    write_geojson(path, polygons, names=NAMES, colours=class_colours(5), **settings)
    return path


@pytest.mark.parametrize("seed", range(40))
def test_a_mask_comes_back(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = random_mask(rng)
    height, width = mask.shape
    path = written(tmp_path / ("m.geojson.gz" if seed % 2 else "m.geojson"), mask)
    labels = read_geojson(path, names=NAMES, shape=mask.shape)
    assert np.array_equal(labels.read(0, 0, height, width), mask)
    row, column = int(rng.integers(height)), int(rng.integers(width))
    assert np.array_equal(labels.read(row, column, height - row, width - column), mask[row:, column:])
    assert set(labels.classes_found) == {NAMES[k] for k in np.unique(mask) if k}


@pytest.mark.parametrize("scale", [2.0, 4.0, 16.0, 0.5, 2.5, 3.99971])
def test_a_mask_of_a_reduced_image_comes_back(tmp_path: Path, scale: float) -> None:
    mask = random_mask(np.random.default_rng(8))
    labels = read_geojson(written(tmp_path / "m.geojson", mask, scale=(scale, scale)), names=NAMES)
    assert np.array_equal(labels.read(0, 0, *mask.shape, factor=scale), mask)
    if scale == int(scale):
        whole = np.repeat(np.repeat(mask, int(scale), 0), int(scale), 1)
        assert np.array_equal(labels.read(0, 0, *whole.shape), whole)


def test_what_qupath_reads(tmp_path: Path) -> None:
    mask = np.array([[2, 2, 2, 0], [2, 0, 2, 1], [2, 2, 2, 0]], np.uint8)
    weights = np.where(mask == 2, 51, 255).astype(np.uint8)
    path = written(tmp_path / "a.geojson", mask, scale=(3, 2), mpp=0.5, probabilities=[weights])
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert list(collection) == ["type", "features"]
    assert collection["type"] == "FeatureCollection"
    small, large = collection["features"]
    assert uuid.UUID(small.pop("id")) != uuid.UUID(large.pop("id"))
    assert small == {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[6, 3], [8, 3], [8, 6], [6, 6], [6, 3]]]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "tumour", "color": [230, 159, 0]},
            "measurements": {"Area px": 6, "Area um^2": 1.5, "Probability": 1.0},
        },
    }
    exterior, hole = large["geometry"]["coordinates"]
    assert exterior == [[0, 0], [6, 0], [6, 9], [0, 9], [0, 0]]
    assert hole == [[2, 3], [2, 6], [4, 6], [4, 3], [2, 3]]  # the other way round: RFC 7946
    assert large["properties"]["measurements"] == {"Area px": 48, "Area um^2": 12, "Probability": pytest.approx(0.2)}
    assert all(isinstance(number, int) for point in exterior for number in point)


def test_options(tmp_path: Path) -> None:
    mask = np.ones((2, 2), np.uint8)
    (feature,) = json.loads(written(tmp_path / "a.json", mask, detections=True).read_text())["features"]
    assert feature["properties"]["objectType"] == "detection"
    assert feature["properties"]["measurements"] == {"Area px": 4}
    path = written(tmp_path / "b.json", mask, scale=(1.23456789, 0.1))
    (feature,) = json.loads(path.read_text())["features"]
    assert feature["geometry"]["coordinates"][0][2] == [0.2, 2.4691]
    empty = written(tmp_path / "c.geojson", np.zeros((3, 3), np.uint8))
    assert json.loads(empty.read_text()) == {"type": "FeatureCollection", "features": []}
    assert len(read_geojson(empty, names=NAMES, shape=(3, 3))) == 0


def test_equal_polygons_give_equal_files(tmp_path: Path) -> None:
    mask = random_mask(np.random.default_rng(4))
    one, two = written(tmp_path / "a.geojson", mask), written(tmp_path / "b.geojson", mask)
    assert one.read_bytes() == two.read_bytes()
    packed, again = written(tmp_path / "a.geojson.gz", mask), written(tmp_path / "c.geojson.gz", mask)
    assert packed.read_bytes() == again.read_bytes()
    assert packed.read_bytes()[3:8] == bytes(5)  # neither a name nor a time
    assert gzip.decompress(packed.read_bytes()) == one.read_bytes()
    ids = [feature["id"] for feature in json.loads(one.read_text(encoding="utf-8"))["features"]]
    assert len(set(ids)) == len(ids) > 10
    assert all(str(uuid.UUID(one)) == one and uuid.UUID(one).version == 5 for one in ids)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Polygon]:
        yield from polygons_of([np.ones((1, 1), np.uint8)], width=1)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_geojson(tmp_path / "a.geojson.gz", failing(), names=NAMES, colours=class_colours(5))
    with pytest.raises(ValueError, match=r"class 2 has no name; there are 2: 'a', 'b'"):
        write_geojson(tmp_path / "a.geojson", polygons_of([np.full((1, 1), 2, np.uint8)], width=1),
                      names=("a", "b"), colours=class_colours(2))  # fmt: skip
    strange = Polygon(1, np.array([[0, 0], [0, 1], [1, 1], [1, 0]]), (), 1, float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        write_geojson(tmp_path / "a.geojson", [strange], names=NAMES, colours=class_colours(5))
    assert list(tmp_path.iterdir()) == []


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names no GeoJSON file; end it in \.geojson or \.geojson\.gz"):
        write_geojson(tmp_path / "a.png", [], names=NAMES, colours=class_colours(5))
    with pytest.raises(ValueError, match="got 2 for 5 names"):
        write_geojson(tmp_path / "a.json", [], names=NAMES, colours=class_colours(2))
    for scale, mpp in (((0, 1), None), ((1, float("nan")), None), ((1, 1), -1.0)):
        with pytest.raises(ValueError, match="must be positive"):
            write_geojson(tmp_path / "a.json", [], names=NAMES, colours=class_colours(5), scale=scale, mpp=mpp)


def feature(properties: object, kind: str = "Polygon", at: int = 0) -> dict:
    ring = [[at, 0], [at + 2, 0], [at + 2, 2], [at, 2], [at, 0]]
    coordinates = {"Polygon": [ring], "MultiPolygon": [[ring], [[[x + 5, y] for x, y in ring]]], "Point": [at, 0],
                   "LineString": ring}[kind]  # fmt: skip
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def saved(path: Path, *features: dict) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "properties",
    [
        {"classification": {"name": "stroma", "color": [1, 2, 3]}},
        {"classification": {"name": "stroma", "colorRGB": -3670016}, "isLocked": True},
        {"classification": {"name": " stroma "}},
        {"classification": {"names": ["stroma"]}},
        {"classification": "stroma"},
        {"name": "stroma"},
        {"classification": {"name": "stroma"}, "name": "tumour"},
    ],
)
def test_every_way_to_name_a_class(tmp_path: Path, properties: dict) -> None:
    labels = read_geojson(saved(tmp_path / "a.geojson", feature(properties)), names=NAMES)
    assert labels.read(0, 0, 3, 3).tolist() == [[2, 2, 0], [2, 2, 0], [0, 0, 0]]
    assert labels.classes_found == ("stroma",)


def test_derived_classes_and_classes_of_the_file(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.geojson",
        feature({"classification": {"names": ["Tumor", "Positive"]}}),
        feature({"classification": {"name": "Stroma"}}, at=2),
        feature({"classification": {"name": "Tumor: Positive"}}, at=4),
    )
    labels = read_geojson(path)
    assert labels.names == ("background", "Tumor: Positive", "Stroma")
    assert labels.read(0, 0, 1, 6).tolist() == [[1, 1, 2, 2, 1, 1]]


def test_multipolygons_and_background(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.geojson",
        feature({"classification": {"name": "d"}}, "MultiPolygon"),
        feature({"classification": {"name": "background"}}, at=6),
    )
    assert read_geojson(path, names=NAMES).read(0, 0, 1, 8).tolist() == [[4, 4, 0, 0, 0, 4, 0, 0]]


def test_features_without_a_class(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.geojson", feature({}), feature(None, at=3), feature({"name": "ROI 7"}, at=6))
    for names in (None, ("nothing", "lesion")):
        labels = read_geojson(path, names=names)
        assert labels.read(0, 0, 1, 8).tolist() == [[1, 1, 0, 1, 1, 0, 1, 1]]
        assert labels.names == (names or ("background", "foreground"))
        assert labels.classes_found == ()
    with pytest.raises(
        InputError, match=r"has 3 of 3 polygons without a class; set their class to one of 'background'"
    ):
        read_geojson(path, names=NAMES)
    mixed = saved(tmp_path / "b.geojson", *(feature({"classification": name}) for name in ("a", "b", None)))
    with pytest.raises(InputError, match=r"has 1 of 3 polygons without a class"):
        read_geojson(mixed)


def test_unknown_classes_are_listed(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.geojson", *(feature({"classification": name}) for name in ("Tumour", "d", "x", "Tumour"))
    )
    complaint = r"has the class 'Tumour', 'x'; known are 'background', 'tumour', 'stroma', .*, 'd': rename"
    with pytest.raises(InputError, match=complaint):
        read_geojson(path, names=NAMES)


def test_other_geometries_are_left_out_with_one_warning(tmp_path: Path) -> None:
    one = feature({"classification": "d"})
    points = [feature({"classification": "unheard of"}, "Point")] * 3
    path = saved(tmp_path / "a.geojson", *points, one, feature({}, "LineString"), {"geometry": None})
    with pytest.warns(
        UserWarning, match=r"left out 5 features that are no polygons \(3 Point, 1 LineString, 1 no"
    ) as seen:
        labels = read_geojson(path, names=NAMES)
    assert len(seen) == 1
    assert len(labels) == 1


def test_annotations_of_another_image(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.geojson", feature({}, at=100), feature({}, at=200))
    with pytest.raises(InputError, match=r"no polygon within its image of 50 x 50 pixels; they .* row 0, column 100"):
        read_geojson(path, shape=(50, 50))
    with pytest.warns(UserWarning, match="1 polygons lie outside the image of 50 x 150 pixels"):
        read_geojson(path, shape=(50, 150))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_geojson(path, shape=(50, 201))) == 2


OLD = (b"[", b"]", b"{", b"}", b",", b":", b"1", b'"', b"Polygon", b"coordinates", b"name", b"Feature")
NEW = (b"", b"null", b"NaN", b"-1e999", b"[[[", b"{}", b"9" * 5000, b"true", b'"\\ud800"', b"\0", b"[]")


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Cut short, bytes flipped, a part lost, doubled or moved, or a token replaced by another."""
    kind, at = dice.randrange(6), dice.randrange(len(data))
    end = min(len(data), at + dice.randrange(1, 60))
    if kind == 0:
        return data[:at]
    if kind == 1:
        flipped = bytearray(data)
        for _ in range(dice.randrange(1, 9)):
            flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        return bytes(flipped)
    if kind == 2:
        return data[:at] + data[end:]
    if kind == 3:
        return data[:end] + data[at:]
    if kind == 4:
        to = dice.randrange(len(data))
        return data[:to] + data[at:end] + data[to:]
    old = dice.choice([b"[", b"]", b"{", b"}", b",", b":", b"1", b'"', b"Polygon", b"coordinates", b"name", b"Feature"])
    new = dice.choice(
        [b"", b"null", b"NaN", b"-1e999", b"[[[", b"{}", b"9" * 5000, b"true", b'"\\ud800"', b"\0", b"[]"]
    )
    return data.replace(old, new, dice.randrange(1, 4))


@pytest.mark.parametrize("packed", [False, True])
def test_mutants_are_read_or_refused_in_one_line(tmp_path: Path, packed: bool) -> None:
    mask = np.random.default_rng(2).integers(0, 5, (6, 7)).astype(np.uint8)
    data = written(tmp_path / "m.geojson", mask).read_bytes()
    whole = gzip.compress(data, mtime=0) if packed else data
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for seed in range(150):
            path = tmp_path / "mutant.geojson"
            path.write_bytes(mutated(whole, random.Random(seed)))
            refusal = ""
            try:
                labels = read_geojson(path, names=NAMES, shape=mask.shape).read(0, 0, 6, 7)
                assert not packed or np.array_equal(labels, mask), seed  # gzip has a checksum
            except InputError as fault:
                refusal = str(fault)
                refused += 1
            assert "\n" not in refusal, seed
            assert len(refusal) < 600, seed
    assert refused > (130 if packed else 90)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; check the path"):
        read_geojson(tmp_path / "none.geojson")
    if os.geteuid():
        path = saved(tmp_path / "a.geojson")
        path.chmod(0)
        with pytest.raises(InputError, match="cannot be read"):
            read_geojson(path)
