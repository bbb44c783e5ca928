"""Text to features: every way of packing them, and every way in which a file can be no GeoJSON."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from patchforest.errors import InputError
from patchforest.io import features
from patchforest.io.features import features_in, polygons_in

RING = [[0, 0], [4, 0], [4, 4], [0, 0]]
FEATURE = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [RING]}, "properties": {"name": "µ 漢"}}


def saved(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.geojson"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ({"type": "FeatureCollection", "features": [FEATURE, FEATURE]}, 2),
        ({"features": [FEATURE], "crs": {"x": [1, {}]}, "type": "FeatureCollection"}, 1),
        ({"type": "FeatureCollection", "features": []}, 0),
        ([FEATURE, FEATURE, FEATURE], 3),
        ([], 0),
        (FEATURE, 1),
        (FEATURE["geometry"], 1),
    ],
)
def test_collections_lists_and_single_ones(tmp_path: Path, value: object, count: int) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=2, ensure_ascii=False), "\ufeff \n" + json.dumps(value)):
        for data in (text.encode(), gzip.compress(text.encode())):
            found = list(features_in(saved(tmp_path, data)))
            assert found == (
                value["features"] if "features" in value else value if isinstance(value, list) else [value]
            )
            assert len(found) == count
            for number, feature in enumerate(found, 1):
                ((ring,),) = polygons_in(feature, tmp_path, number)
                assert ring.tolist() == RING[:3]


def test_polygons_of_a_feature(tmp_path: Path) -> None:
    def parts(kind: str, coordinates: object) -> object:
        return polygons_in({"geometry": {"type": kind, "coordinates": coordinates}}, tmp_path, 1)

    assert [len(part) for part in parts("MultiPolygon", [[RING, RING], [RING]])] == [2, 1]
    ((ring,),) = parts("Polygon", [[[0.5, 1, 9], [2, 3, 9], [4, 5, 9]]])  # a third coordinate, not closed
    assert ring.tolist() == [[0.5, 1], [2, 3], [4, 5]]
    assert ring.dtype == np.float64
    assert parts("MultiPolygon", []) == parts("Polygon", []) == []
    assert parts("Point", [1, 2]) == "Point"
    assert parts("LineString", [[1, 2], [3, 4]]) == "LineString"
    assert polygons_in({"geometry": None}, tmp_path, 1) == "no geometry"
    assert polygons_in({"type": "GeometryCollection", "geometries": []}, tmp_path, 1) == "GeometryCollection"


BIG = "1" + "0" * 400
TEXTS = {
    "": "is empty; copy",
    " \n": "is empty; copy",
    "\xff\xfe": "is no UTF-8 text",
    "II*\0": r"is no GeoJSON \(it starts with 'II",
    "null": "is no GeoJSON",
    "<html>": "is no GeoJSON",
    "{": "ends too early, at line 1 column 2",
    '{"type": "FeatureCollection", "features": [': "ends too early",
    '{"type": "FeatureCollection", "features": [{"a": "b': "no valid JSON|ends too early",
    '{"features": []': "ends too early",
    '{"features": [],}': "no valid JSON",
    '{"features": [1,]}': "holds a int where a feature",
    '{"features": [{"geometry": null},]}': "Expecting a value after a comma at line 1 column 34",
    '{"features": [] "a": 1}': "Expecting ','",
    '{"features" []}': "Expecting ':'",
    "{features: []}": "in double quotes",
    '{"features": []} []': "more text after the end at line 1 column 17",
    "[[1, 2]]": "holds a list where a feature should be",
    '["a"]': "holds a str where",
    "{}": "object 1 has no geometry",
    '{"type": "FeatureCollection"}': "object 1 has no geometry",
    '{"type": "FeatureCollection", "features": null}': "object 1 has no geometry",
    '[{"geometry": 3}]': "no proper geometry in feature 1",
    '[{"geometry": {"type": "Polygon"}}]': "a Polygon without lists",
    '[{"geometry": {"type": "Polygon", "coordinates": {"0": 1}}}]': "a Polygon without lists",
    '[{"geometry": {"type": "MultiPolygon", "coordinates": [3]}}]': "a MultiPolygon without lists",
    "RING [[0, 0], [1, 0]]": "a ring of only 2 points in feature 2",
    "RING [[0, 0], [1, 0], [0, 0]]": "a ring of only 2 points",
    "RING []": r"no list of \[x, y\] numbers",
    "RING null": r"no list of \[x, y\]",
    "RING 5": r"no list of \[x, y\]",
    "RING [1, 2, 3]": r"no list of \[x, y\]",
    "RING [[0], [1], [2]]": r"no list of \[x, y\]",
    "RING [[0, 0], [1, 0], [1]]": r"no list of \[x, y\]",
    'RING [["0", "0"], ["1", "0"], ["1", "1"]]': r"no list of \[x, y\]",
    "RING [[0, 0], [1, null], [1, 1]]": r"no list of \[x, y\]",
    "RING [[true, false], [true, true], [false, true]]": r"no list of \[x, y\]",
    "RING [[0, 0], [1, NaN], [1, 1]]": "holds NaN, which is no number",
    "RING [[0, 0], [1, -Infinity], [1, 1]]": "holds -Infinity",
    "RING [[0, 0], [1, 1e400], [1, 1]]": "the coordinate inf in feature 2, outside every image",
    "RING [[0, 0], [1, 1e300], [1, 1]]": r"the coordinate 1e\+300",
    "RING [[0, 0], [1, -3000000000], [1, 1]]": r"the coordinate -3e\+09",
    f"RING [[0, 0], [1, {BIG}], [1, 1]]": r"no list of \[x, y\]",
    f"RING [[0, 0], [1, {BIG * 12}], [1, 1]]": "cannot be read as JSON|no list of",
}


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_geojson(tmp_path: Path, text: str) -> None:
    data = text.encode("latin-1")
    if text.startswith("RING "):
        bad = json.dumps(FEATURE).replace(json.dumps(RING), text[5:])
        data = f"[{json.dumps(FEATURE)}, {bad}]".encode()
    path = saved(tmp_path, data)
    with pytest.raises(InputError, match=TEXTS[text]) as caught:
        [polygons_in(feature, path, number) for number, feature in enumerate(features_in(path), 1)]
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("head", ["", '{"features": ', '[{"geometry": {"type": "Polygon", "coordinates": '])
@pytest.mark.parametrize("mark", ["[", '{"a":'])
def test_a_million_brackets(tmp_path: Path, head: str, mark: str) -> None:
    path = saved(tmp_path, head + mark * 1_000_000)
    with pytest.raises(InputError, match=r"nested too deeply|where a feature should be|no valid JSON|ends too early"):
        list(features_in(path))


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, complaint in [
        (tmp_path / "none.geojson", "does not exist"),
        (tmp_path, "is a folder, pipe or device"),
        (Path("/dev/null"), "is a folder, pipe or device"),
        (tmp_path / "a\0b", "cannot be read"),
        (tmp_path / ("a" * 300), "cannot be read"),
    ]:
        with pytest.raises(InputError, match=complaint):
            list(features_in(path))
    packed = gzip.compress(json.dumps([FEATURE] * 50).encode())
    for data in (packed[:-9], packed[:40], packed[:20] + b"\0" + packed[21:], packed + b"more"):
        with pytest.raises(InputError, match="damaged gzip data"):
            list(features_in(saved(tmp_path, data)))
    monkeypatch.setattr(features, "MAX_BYTES", 1 << 20)
    with pytest.raises(InputError, match="holds more than 1 MiB of text; export it in parts"):
        list(features_in(saved(tmp_path, "[" + " " * (1 << 20))))


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path, gzip.compress(bytes(1 << 20), 9) * 300)  # 300 MiB in 300 KiB
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(InputError, match="holds more than 64 MiB of text"):
        list(features_in(path))
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    assert time.perf_counter() - start < 5


def test_one_feature_at_a_time(tmp_path: Path) -> None:
    """Python objects of the whole file would take about ten times its text."""
    path = saved(tmp_path, json.dumps({"features": [FEATURE] * 20_000}))
    tracemalloc.start()
    assert sum(1 for _ in features_in(path)) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size
    tracemalloc.stop()
