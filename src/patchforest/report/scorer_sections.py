"""Sections of report.html for a scorer: its forests beside those of edges, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

from patchforest.data.layout import Case
from patchforest.models.bundle import Bundle
from patchforest.report.environment import describe_environment
from patchforest.report.forest_picture import draw_forest
from patchforest.report.html import Picture, Section, Table
from patchforest.train.config import RunConfig
from patchforest.train.scorer import judge

WIDTH = 900


def scorer_sections(scorer: Bundle, cases: Sequence[Case], config: RunConfig) -> list[Section]:
    """A table of label ceilings, and for each case the forests of scorer and edges side by side."""
    rows, sections = [], []
    for case in cases:
        judged = judge(scorer, case, label_map=config.data.labels, scale=config.data.scale)
        height, width = judged.label.shape
        ceilings = [f"{judged.ceiling:.4f}", f"{judged.ceiling_edges:.4f}"]
        rows.append([case.id, f"{height} × {width}", f"{len(judged.forest):,}", *ceilings])
        pictures = [
            Picture(caption, draw_forest(judged.image, forest, max_side=WIDTH))
            for caption, forest in (("by the scorer", judged.forest), ("by edges", judged.by_edges))
        ]
        sections.append(Section(title=case.id, pictures=pictures))
    text = (
        f"Label ceilings of {len(cases)} of the validation cases: the best Dice of any mask whose leaves are those of "
        f"the scorer's forest, or of that of edges. {describe_environment().line}."
    )
    header = ["case", "pixels", "tokens", "ceiling", "ceiling of edges"]
    return [Section(title="Validation cases", text=text, table=Table(header, rows)), *sections]
