"""``verify``: 0 and a line where all is well, 3 and a line for every fault."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run
from tests.cli.test_prepare import prepare
from tests.data.prepared_data import make_images


def test_faults_and_changed_inputs_are_listed(run: Run, tmp_path: Path) -> None:
    data, out = make_images(tmp_path / "data", 5, bad=[1]), tmp_path / "out"
    assert prepare(run, data, out).code == 4
    good = run("verify", out, "--inputs", data)
    assert good.code == 0, good.err
    assert f"{out}: 4 images, 1 items each, all whole; 1 images had failed, e.g. " in good.out
    items = sorted((out / "items").iterdir())
    items[0].write_bytes(items[0].read_bytes()[:-1])
    items[1].unlink()
    (data / "images" / "case004.png").write_bytes(b"new")
    bad = run("verify", out, "--inputs", data)
    assert bad.code == 3
    assert len(bad.errors) == 3
    assert items[0].name in bad.errors[0]
    assert items[1].name in bad.errors[1]
    assert "case004.png: has changed" in bad.errors[2]
    assert run("verify", out).code == 3
    mended = prepare(run, data, out, "--max-failures", 2)
    assert mended.code == 4  # case004 is no image any more
    assert run("verify", out).code == 0


def test_other_folders_are_refused(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        ended = run("verify", path)
        assert ended.code == 3
        assert "is no folder of prepared items" in ended.errors[0]
