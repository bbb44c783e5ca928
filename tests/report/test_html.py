"""The report: one file, everything inside, everything escaped."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from patchforest.report.html import Picture, Section, Table, data_uri, render_report, write_report

EVIL = "<script>alert('x')</script> & \"q\""


class _Check(HTMLParser):
    """Collects tags, and fails on unclosed or crossed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _page() -> str:
    noise = np.random.default_rng(1).integers(0, 256, (30, 2000, 3), dtype=np.uint8)
    sections = [
        Section(title=EVIL, text=f"{EVIL}\nsecond line", table=Table(header=["model", EVIL], rows=[["a", EVIL]])),
        Section(
            title="Pictures",
            legend=[(EVIL, (1, 2, 3))],
            pictures=[Picture(EVIL, noise), Picture("b", noise, sharp=True)],
        ),
    ]
    return render_report(title=EVIL, sections=sections)


def test_the_page_is_well_formed_self_contained_and_escaped() -> None:
    page = _page()
    check = _Check()
    check.feed(page)
    assert not check.open
    assert "script" not in [tag for tag, _ in check.tags]
    assert "alert('x')" not in page
    assert not re.search(r"https?://", page)
    sources = [attrs["src"] for tag, attrs in check.tags if tag == "img"]
    assert len(sources) == 2
    assert all(s and s.startswith("data:image/") for s in sources)


def test_pictures_are_at_most_900_wide_and_keep_their_colours() -> None:
    red = np.zeros((20, 1800, 3), np.uint8)
    red[:, :, 0] = 255
    for sharp in (True, False):
        kind, data = data_uri(Picture("red", red, sharp=sharp)).split(",")
        assert ("png" in kind) == sharp
        pixels = np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR))
        assert pixels.shape == (10, 900, 3)
        np.testing.assert_allclose(pixels[5, 450], [0, 0, 255], atol=4)


def test_only_rgb_bytes_are_taken() -> None:
    with pytest.raises(ValueError, match="uint8"):
        data_uri(Picture("grey", np.zeros((5, 5, 1), np.uint8)))
    with pytest.raises(ValueError, match="uint8"):
        data_uri(Picture("float", np.zeros((5, 5, 3))))


def test_a_report_is_one_file_with_nothing_beside_it(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report ü.html", title="T", sections=[Section(title="S", text="text")])
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report ü.html"]
