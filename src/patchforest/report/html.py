"""One file that says it all: report.html with text, tables, pictures and charts inside, readable without a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path

import cv2
import numpy as np

from patchforest.report.display import shrink
from patchforest.values import Array

MAX_WIDTH = 900


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture (H, W, 3) uint8 RGB with its caption; ``sharp`` keeps flat colours exact (PNG instead of JPEG)."""

    caption: str
    pixels: Array
    sharp: bool = False


@dataclass(frozen=True)
class Table:
    """A table of ready-made cells; the first column is left-aligned, numbers on the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, eq=False)
class Section:
    """A heading with what stands under it: text, table, legend, pictures side by side, charts (SVG text).

    ``charts`` are trusted markup from ``report.curves``; everything else is escaped.
    """

    title: str
    text: str = ""
    table: Table | None = None
    legend: Sequence[tuple[str, tuple[int, ...]]] = ()
    pictures: Sequence[Picture] = field(default_factory=tuple)
    charts: Sequence[str] = ()


def write_report(path: Path, *, title: str, sections: Iterable[Section]) -> Path:
    """Writes a self-contained HTML page, whole or not at all, and returns its path.

    Pictures are shrunk to 900 px and stored inside the file; the page loads nothing from anywhere.

    Raises
    ------
    InputError : the path cannot be written (see ``io.atomic``).
    """
    from patchforest.io.atomic import write_bytes

    write_bytes(Path(path), render_report(title=title, sections=sections).encode("utf-8"))
    return Path(path)


def render_report(*, title: str, sections: Iterable[Section]) -> str:
    """The page as text; see ``write_report``."""
    body = "\n".join(_section(section) for section in sections)
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return _PAGE.format(title=escape(title), css=_CSS, body=body, when=escape(when))


def data_uri(picture: Picture) -> str:
    """The picture as a ``data:`` address: JPEG (quality 88), or PNG where ``sharp``; no side over 900 px."""
    pixels = shrink(np.ascontiguousarray(picture.pixels), MAX_WIDTH)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"a report picture is (H, W, 3) uint8; got {pixels.shape} {pixels.dtype}")
    suffix, kind = (".png", "png") if picture.sharp else (".jpg", "jpeg")
    options = [] if picture.sharp else [cv2.IMWRITE_JPEG_QUALITY, 88]
    _, encoded = cv2.imencode(suffix, pixels[:, :, ::-1], options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def _section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(line)}</p>" for line in section.text.split("\n") if line]
    if section.table is not None:
        parts.append(_table(section.table))
    if section.legend:
        keys = (
            f'<li><span style="background:rgb({",".join(str(int(c)) for c in rgb)})"></span>{escape(name)}</li>'
            for name, rgb in section.legend
        )
        parts.append(f'<ul class="legend">{"".join(keys)}</ul>')
    if section.pictures:
        parts.append(f'<div class="row">{"".join(_figure(p) for p in section.pictures)}</div>')
    if section.charts:
        parts.append(f'<div class="row">{"".join(section.charts)}</div>')
    return "\n".join([*parts, "</section>"])


def _figure(picture: Picture) -> str:
    caption = escape(picture.caption)
    return f'<figure><img src="{data_uri(picture)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{css}</style></head>
<body><main><h1>{title}</h1>
{body}
<footer>Written by patchforest on {when}.</footer></main></body></html>
"""

_CSS = """
:root{--ink:#1c2330;--soft:#5c6676;--line:#dde2ea;--paper:#fff;--page:#f4f6f9}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa4b5;--line:#343c4a;--paper:#1b2029;--page:#12161d}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 16px}
h1{font-size:1.7rem;margin:.2em 0 .6em}h2{font-size:1.15rem;margin:0 0 .5em}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:16px 18px;margin:0 0 16px}
p{margin:.2em 0 .8em;max-width:75ch}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}th{font-weight:600;color:var(--soft)}
.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:14px;align-items:start}
figure{margin:0}img{width:100%;height:auto;display:block;border-radius:6px;background:#000}
figcaption{color:var(--soft);font-size:.88rem;padding:4px 2px}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:0 0 10px;font-size:.9rem}
.legend span{display:inline-block;width:.9em;height:.9em;border-radius:3px;margin-right:.45em;vertical-align:-.08em}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--soft)}
svg .title{font-size:13px;font-weight:600;fill:var(--ink)}
svg .grid{stroke:var(--line)}
footer{color:var(--soft);font-size:.85rem;padding:4px}
"""
