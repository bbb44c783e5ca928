"""The folder of a view, and what a browser makes of it when it is opened by a double click."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchforest.errors import InputError
from patchforest.io.array import ArraySource
from patchforest.report import palette
from patchforest.report.view_layers import Layer
from patchforest.report.viewer import ASSETS, MARKER, forest_table, is_view, require_extent, write_view
from patchforest.tree.cut import cut_forest
from patchforest.values import Array, Forest, ForestPolicy

TITLE = """a </script><b>"&'ü\u2028.svs"""


@dataclass(frozen=True)
class Scene:
    """An image of two flat halves, a mask of half its size, its forest: everything at known places."""

    image: ArraySource
    mask: Array
    forest: Forest

    @property
    def layers(self) -> list[Layer]:
        """A prediction and a truth."""
        source = ArraySource(self.mask)
        return [Layer("prediction", source, names=("background", "<i>gland")), Layer("truth", source)]


@pytest.fixture(scope="module")
def scene() -> Scene:
    image = np.empty((700, 1301, 3), np.uint8)
    image[:, :650], image[:, 650:] = (200, 180, 220), (40, 60, 80)
    mask = np.zeros((350, 651), np.uint8)
    mask[100:200, 150:250] = 1
    mask[:, 600:] = 3
    return Scene(ArraySource(image, mpp=0.25), mask, cut_forest(image, ForestPolicy(uniform=64)))


@pytest.fixture(scope="module")
def view(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("a ü#%3f") / "view of it"
    write_view(out, scene.image, title=TITLE, forest=scene.forest, layers=scene.layers, threads=2)
    return out


def variable(path: Path) -> dict:
    """The value that a script sets."""
    found = re.fullmatch(r"window\.(\w+) = (.*);\n", path.read_text(encoding="ascii"))
    assert found
    return json.loads(found[2])


def test_the_folder_holds_what_the_page_needs(scene: Scene, view: Path) -> None:
    assert is_view(view)
    assert not is_view(view.parent)
    top = {p.name for p in view.iterdir()}
    assert top == {*ASSETS, MARKER, "index.html", "view.js", "forest.js", "image", "layer0", "layer1"}
    data = variable(view / "view.js")
    assert (data["title"], data["height"], data["width"], data["mpp"]) == (TITLE, 700, 1301, 0.25)
    for source in [data["image"], *(layer["tiles"] for layer in data["layers"])]:
        for level in range(source["levels"]):
            shrunk = 2 ** (source["levels"] - 1 - level)
            for c in range(-(-source["width"] // shrunk // source["tile"])):
                assert (view / source["folder"] / str(level) / f"{c}_0{source['suffix']}").is_file()
    first, second = (layer["legend"] for layer in data["layers"])
    colours = palette.class_colours(4).tolist()
    assert first == [{"name": "<i>gland", "colour": colours[1]}, {"name": "class 3", "colour": colours[3]}]
    assert [entry["name"] for entry in second] == ["class 1", "class 3"]


def test_the_leaf_table_is_the_forest(scene: Scene, view: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (333, 500), dtype=np.uint8)
    forest = cut_forest(image, ForestPolicy(budget=200))
    for table, expected in (
        (forest_table(forest), forest),
        (variable(view / "forest.js"), scene.forest),
    ):
        assert table is not None
        assert table["count"] == len(expected)
        rows, columns = (np.frombuffer(base64.b64decode(table[k]), "<u4") for k in ("rows", "columns"))
        levels = np.frombuffer(base64.b64decode(table["levels"]), np.uint8)
        np.testing.assert_array_equal(np.stack([rows, columns], 1) * table["cell"], expected.origin)
        np.testing.assert_array_equal(table["root"] >> levels.astype(int), expected.size)
        assert table["colours"] == palette.level_colours(expected.depth).tolist()
    assert forest_table(None) is None


class _Names(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags, self.links, self.ids = list[str](), list[str](), set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [v for k in ("src", "href") if (v := values.get(k))]
        self.ids.add(values.get("id") or "")
        if tag == "button":
            assert values.get("aria-label")


def test_the_page_loads_only_its_own_files_and_escapes_its_title(view: Path) -> None:
    page = (view / "index.html").read_text(encoding="utf-8")
    names = _Names()
    names.feed(page)
    assert "b" not in names.tags
    for link in names.links:
        assert link == "data:," or (view / link).is_file(), link
    for name in ("index.html", "viewer.css", "viewer.js", "leaves.js", "view.js", "forest.js"):
        text = (view / name).read_text(encoding="utf-8")
        assert not re.search(r"https?:|//[a-z]+\.|fetch\(|XMLHttpRequest|import\(|@import|url\(", text), name
    wanted = set(re.findall(r'byId\("([a-z-]+)"\)', (view / "viewer.js").read_text(encoding="utf-8")))
    assert len(wanted) > 10
    assert wanted <= names.ids


def test_the_library_is_whole_and_has_its_licence(view: Path) -> None:
    text = (view / "openseadragon.min.js").read_text(encoding="utf-8")
    assert text.startswith("//! openseadragon 6.1.1\n")
    licence = (view / "openseadragon-LICENSE.txt").read_text(encoding="utf-8")
    assert "Redistribution and use in source and binary forms" in licence
    assert sum((view / name).stat().st_size for name in ASSETS) < 1e6


def test_the_same_view_has_the_same_bytes(scene: Scene, view: Path, tmp_path: Path) -> None:
    write_view(tmp_path / "v", scene.image, title=TITLE, forest=scene.forest, layers=scene.layers, threads=1)
    files = [p.relative_to(view) for p in view.rglob("*") if p.is_file()]
    assert all((tmp_path / "v" / p).read_bytes() == (view / p).read_bytes() for p in files)


def test_only_a_view_is_replaced(tmp_path: Path) -> None:
    small = ArraySource(np.zeros((20, 30, 1), np.uint8))
    out = tmp_path / "deep" / "v"
    write_view(out, small, title="one")
    (out / "stray").write_text("")
    write_view(out, small, title="two")
    assert variable(out / "view.js")["title"] == "two"
    assert not (out / "stray").exists()
    other = tmp_path / "other"
    other.mkdir()
    write_view(other, small, title="into an empty folder")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="folder of something else"):
        write_view(mine, small, title="x")
    with pytest.raises(InputError, match="no folder"):
        write_view(mine / "thesis.txt", small, title="x")
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "mine", "other"]
    assert [p.name for p in out.parent.iterdir()] == ["v"]


def test_what_fails_leaves_the_old_view(tmp_path: Path) -> None:
    small = ArraySource(np.zeros((20, 30, 1), np.uint8))
    write_view(tmp_path / "v", small, title="old")
    wrong = Layer("truth", ArraySource(np.zeros((20, 30, 3), np.uint8)))
    with pytest.raises(InputError, match="no mask"):
        write_view(tmp_path / "v", small, title="new", layers=[wrong])
    assert variable(tmp_path / "v" / "view.js")["title"] == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["v"]


@pytest.mark.parametrize("shape", [(700, 1301), (350, 651), (350, 650), (175, 325), (175, 326), (1400, 2602), (1, 2)])
def test_layers_of_the_same_extent_fit(shape: tuple[int, int]) -> None:
    require_extent("m.png", shape, (700, 1301, 3))


@pytest.mark.parametrize("shape", [(1301, 700), (350, 640), (700, 1303), (702, 1301), (1, 1301)])
def test_layers_of_another_extent_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"{shape[0]} x {shape[1]} pixels.*700 x 1301"):
        require_extent("m.png", shape, (700, 1301, 3))


def test_a_layer_or_forest_of_another_image(scene: Scene, tmp_path: Path) -> None:
    small = ArraySource(np.zeros((20, 31, 1), np.uint8))
    with pytest.raises(InputError, match="350 x 651"):
        write_view(tmp_path / "v", small, title="x", layers=scene.layers)
    with pytest.raises(ValueError, match="700, 1301"):
        write_view(tmp_path / "v", small, title="x", forest=scene.forest)
    assert not (tmp_path / "v").exists()


# ---- in a browser -----------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
    "--disable-component-update --hide-scrollbars --force-device-scale-factor=1 --window-size=800,600 --kiosk "
    "--virtual-time-budget=20000"
)  # a kiosk has no frame, so that the window keeps its size when the picture is taken
STAGE = (800 - 288, 600)


def browse(page: Path, hash_: str, folder: Path, *options: str) -> str:
    """What a browser prints for a page opened from disk; skips where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *FLAGS.split(), profile, *options, page.absolute().as_uri() + hash_]
    return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()


def reported(page: str, name: str) -> str:
    found = re.search(rf'<html[^>]*data-{name}="([^"]*)"', page)
    assert found, page[:400]
    return found[1]


def test_a_browser_opens_it_from_disk(scene: Scene, view: Path, tmp_path: Path) -> None:
    page = browse(view / "index.html", "", tmp_path, "--dump-dom")
    assert reported(page, "ready") == "true"
    assert reported(page, "failed") == "0"
    assert int(reported(page, "leaves")) == len(scene.forest)
    assert int(reported(page, "tiles")) >= 2  # of the image and of the prediction
    assert "700 × 1,301 px · 0.25 µm/px" in page
    assert "&lt;i&gt;gland" in page
    assert "<b>" not in page
    assert re.search(r'id="title">a &lt;/script&gt;&lt;b&gt;"&amp;\'ü', page)
    assert f"{len(scene.forest)} leaves" in page
    assert re.search(r'id="scale-text">[0-9]+ µm<', page)


def test_every_layer_is_drawn_at_its_place(scene: Scene, view: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    where = "#row=300&column=500&zoom=4&layers=image,prediction,forest"
    browse(view / "index.html", where, tmp_path, f"--screenshot={shot}")
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert picture.shape == (600, 800, 3)

    def at(row: float, column: float) -> Array:
        """The screen pixel in the middle of an image pixel."""
        return picture[round(STAGE[1] / 2 + 4 * (row + 0.5 - 300)), round(STAGE[0] / 2 + 4 * (column + 0.5 - 500))]

    image, gland = np.array([200, 180, 220]), palette.class_colours(2)[1].astype(int)
    mixed = (image + gland) / 2
    # mask[100:200, 150:250] of half the size: rows 200 to 400, columns 300 to 500 of the image, to the pixel
    # (its 651 columns are stretched to 1301: by less than half a pixel)
    for row in (240, 300, 360):
        assert np.abs(at(row, 498) - mixed).max() <= 5
        assert np.abs(at(row, 502) - image).max() <= 5
    assert np.abs(at(310, 550) - image).max() <= 5
    # leaves of 64 pixels: their frames are one screen pixel at the first row and column of each
    x, y = round(STAGE[0] / 2 + 4 * (512 - 500)), round(STAGE[1] / 2 + 4 * (320 - 300))
    line = palette.level_colours(scene.forest.depth)[scene.forest.level[0]].astype(int)
    across, down = picture[y + 30, x - 3 : x + 4], picture[y - 3 : y + 4, x + 30]
    for crossing in (across, down):
        off = np.abs(crossing - image).max(axis=1)
        assert off[3] > 30
        assert np.delete(off, 3).max() <= 5
    assert np.abs(across[3] - line).sum() < np.abs(image - line).sum() / 2
