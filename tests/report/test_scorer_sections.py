"""A scorer's report: forests side by side and their ceilings."""

from __future__ import annotations

from pathlib import Path

import torch

from patchforest.data.layout import find_cases
from patchforest.models.build import build_model
from patchforest.models.bundle import Bundle, ModelSpec
from patchforest.models.config import ModelConfig
from patchforest.report.scorer_sections import scorer_sections
from patchforest.train.config import parse_config
from patchforest.train.scorer import judge
from patchforest.values import ForestPolicy
from tests.train.runs import make_data


def test_every_case_has_two_forests_and_a_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ModelConfig(name="scorer", stem=(4, 4), downscale=1, q=4)
    spec = ModelSpec(model, ForestPolicy(budget=12), ("background", "disc"), window=32)
    scorer = Bundle(build_model(model).eval(), spec)
    cases = find_cases(make_data(tmp_path / "data", count=2)).cases
    config = parse_config({"forest": {"budget": 12}, "train": {"max_steps": 1}})
    summary, *each = scorer_sections(scorer, cases, config)
    assert [section.title for section in each] == ["case0", "case1"]
    assert all(len(section.pictures) == 2 for section in each)
    judged = judge(scorer, cases[0])
    assert summary.table is not None
    row = ["case0", "56 × 72", str(len(judged.forest)), f"{judged.ceiling:.4f}", f"{judged.ceiling_edges:.4f}"]
    assert summary.table.rows[0] == row
