"""``view``: a folder from files, options that do not go together, a view that is served."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from patchforest.report.serve import ViewServer
from tests.cli.conftest import Run, write_picture


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were served; serving itself ends at once, as by Ctrl-C."""
    folders: list[Path] = []

    def serve(self: ViewServer) -> None:
        folders.append(self.folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewServer, "serve_forever", serve)
    return folders


def described(folder: Path) -> dict:
    return json.loads((folder / "view.js").read_text().removeprefix("window.patchforestView = ").rstrip(";\n"))


def test_a_view_with_layers(run: Run, tmp_path: Path) -> None:
    from patchforest.io.write import write_mask

    image = write_picture(tmp_path / "a b" / "ü.png", (64, 128))
    mask = np.zeros((64, 128), np.uint8)
    mask[:9] = 255
    write_mask(tmp_path / "m.png", mask)
    options = ["--prediction", tmp_path / "m.png", "--truth", tmp_path / "m.png", "--label-map", "255=1"]
    ended = run("view", image, "--out", tmp_path / "v", *options, "--classes", "background, gland", "--budget", 20)
    assert (ended.code, ended.errors) == (0, [])
    assert re.search(r"3 tiles, .* MB; open .*v/index\.html", ended.out)
    data = described(tmp_path / "v")
    assert data["title"] == "ü.png"
    assert [layer["legend"][0]["name"] for layer in data["layers"]] == ["gland", "gland"]
    leaves = re.search(r'"count": (\d+)', (tmp_path / "v" / "forest.js").read_text())
    assert leaves is not None
    assert 15 <= int(leaves[1]) <= 20


def test_options_of_size_and_forest(run: Run, tmp_path: Path) -> None:
    image = write_picture(tmp_path / "i.png", (300, 500))
    assert run("view", image, "--out", tmp_path / "v", "--max-side", 130, "--no-forest", "--quiet").out == ""
    data = described(tmp_path / "v")
    assert (data["height"], data["width"], data["image"]["height"], data["image"]["width"]) == (300, 500, 75, 125)
    assert "null" in (tmp_path / "v" / "forest.js").read_text()
    assert run("view", image, "--out", tmp_path / "v", "--uniform", 32).code == 0  # replaced
    assert f'"count": {10 * 16}' in (tmp_path / "v" / "forest.js").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--out"),
        (["--out", "v", "--budget", "9", "--uniform", "8"], "one of"),
        (["--out", "v", "--label-map", "x"], "VALUE=CLASS"),
        (["--out", "v", "--port", "70000"], "65535"),
        (["--out", "v", "--max-side", "3"], "max-side"),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run("view", write_picture(tmp_path / "i.png"), *options)
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert says in ended.errors[0]
    assert not (tmp_path / "v").exists()


def test_a_mask_of_another_image_is_bad_input(run: Run, tmp_path: Path) -> None:
    image, other = write_picture(tmp_path / "i.png", (40, 56)), write_picture(tmp_path / "o.png", (56, 40))
    np.save(tmp_path / "o.npy", np.zeros((56, 40), np.uint8))
    ended = run("view", image, "--out", tmp_path / "v", "--truth", tmp_path / "o.npy")
    assert (ended.code, len(ended.errors)) == (3, 1)
    assert "56 x 40" in ended.errors[0]
    assert run("view", image, "--out", tmp_path / "v", "--truth", other).code == 3
    assert not (tmp_path / "v").exists()


def test_a_view_is_served_until_ctrl_c(run: Run, tmp_path: Path, served: list[Path]) -> None:
    image, out = write_picture(tmp_path / "i.png"), tmp_path / "v"
    ended = run("view", image, "--out", out, "--serve", "--budget", 10)
    assert ended.code == 0
    assert "http://127.0.0.1:" in ended.out
    assert run("view", out, "--serve").code == 0
    assert served == [out.resolve(), out.resolve()]
    assert run("view", out).code == 2
    assert run("view", out, "--out", tmp_path / "w").code == 2
    assert len(served) == 2


def test_a_port_that_is_taken(run: Run, tmp_path: Path) -> None:
    image, out = write_picture(tmp_path / "i.png"), tmp_path / "v"
    assert run("view", image, "--out", out, "--budget", 10).code == 0
    with ViewServer(out) as server:
        ended = run("view", out, "--serve", "--port", server.server_port)
    assert ended.code == 3
    assert "--port" in ended.errors[0]
