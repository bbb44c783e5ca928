"""Which settings shape prepared items, which are refused with them, and which have no effect on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchforest.data.layout import CaseList, find_cases
from patchforest.data.manifest import read_manifest
from patchforest.data.prepare import JobOptions
from patchforest.errors import InputError
from patchforest.io.write import write_image
from patchforest.train.config import parse_config
from patchforest.train.prepare import (
    idle_settings,
    prepare_run,
    prepare_settings,
    require_patch_reader,
    require_same_settings,
    resolved_policy,
    usual_channels,
)
from tests.data.prepared_data import make_images
from tests.train.prepared_runs import prepared, token_config, token_settings


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set, prepared."""
    return prepared(data, tmp_path_factory.mktemp("folder") / "out")


def test_settings_are_resolved_as_training_does(data: Path) -> None:
    config = token_config()
    settings = prepare_settings(config, None, 3)
    assert settings.classes == ("background", "foreground")
    assert settings.forest.window == config.data.window == 32
    assert (settings.patch, settings.q, settings.channels, settings.seed) == (8, 8, 3, 0)
    assert prepare_settings(config, ("a", "b", "c"), 3).classes == ("a", "b", "c")
    own = replace(config, data=replace(config.data, classes=("x", "y")))
    assert prepare_settings(own, ("a", "b", "c"), 3).classes == ("x", "y")
    assert prepare_settings(replace(config, model=replace(config.model, q=None)), None, 3).q == 16


def test_items_of_the_same_settings_are_taken(folder: Path) -> None:
    require_same_settings(token_config(), read_manifest(folder))
    free = token_settings(seed=5, lr=0.1, batch=1)
    free["data"] |= {"fold": 1, "folds": 2, "split_seed": 9}
    free["model"] |= {"width": 32, "depth": 2}
    require_same_settings(parse_config(free), read_manifest(folder))


@pytest.mark.parametrize(
    ("section", "change", "named"),
    [
        ("forest", {"budget": 99}, "forest.budget: 16 → 99"),
        ("forest", {"criterion": "edges"}, "forest.criterion: gradient → edges"),
        ("forest", {"cell": 4}, "forest.cell: 8 → 4"),
        ("data", {"window": 64}, "forest.window: 32 → 64"),
        ("data", {"downscale": 2}, "data.downscale: 1 → 2"),
        ("data", {"classes": ["a", "b", "c"]}, "data.classes: "),
        ("data", {"label_map": {"1": 0}}, "data.label_map: None → {'1': 0}"),
        ("data", {"intensity_window": [0.0, 100.0]}, "data.intensity_window: "),
        ("model", {"patch": 4}, "model.patch: 8 → 4"),
        ("model", {"q": 16}, "model.q: 8 → 16"),
    ],
)
def test_items_of_other_settings_are_refused_by_name(folder: Path, section: str, change: dict, named: str) -> None:
    raw = token_settings()
    raw[section] = {**raw[section], **change}
    with pytest.raises(InputError) as caught:
        require_same_settings(parse_config(raw), read_manifest(folder))
    assert named in str(caught.value)
    assert "prepared with other settings" in str(caught.value)


def test_models_that_read_pixels_are_refused(folder: Path, data: Path, tmp_path: Path) -> None:
    for change, named in (({"name": "apf_unetr"}, "apf_unetr reads pixels"), ({"stem": [8]}, r"stem \[8\]")):
        raw = token_settings()
        raw["model"] |= change
        config = parse_config(raw)
        with pytest.raises(InputError, match=rf"{named}.*set model\.name=shf and model\.stem=\[\]"):
            require_patch_reader(config.model)
        with pytest.raises(InputError, match="set model"):
            require_same_settings(config, read_manifest(folder))
        with pytest.raises(InputError, match="set model"):
            prepare_run(config, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_without_effect_are_named(folder: Path) -> None:
    raw = token_settings()
    raw["data"] |= {"foreground": 0.9}
    raw["augment"] |= {"blur": 0.7}
    raw["forest"] |= {"fresh": True}
    with pytest.warns(
        UserWarning, match=r"no effect on prepared items: data\.foreground, augment\.blur, forest\.fresh"
    ):
        require_same_settings(parse_config(raw), read_manifest(folder))
    assert idle_settings(token_config(), 1) == []
    assert idle_settings(parse_config(raw), 3) == ["data.foreground", "augment.blur"]


def test_settings_that_cannot_work_are_named() -> None:
    raw = token_settings()
    raw["forest"] |= {"root": 24}
    with pytest.raises(InputError, match="forest: root must be"):
        resolved_policy(parse_config(raw))
    for name, side in (("q", 12), ("patch", 3)):
        raw = token_settings()
        raw["model"] |= {name: side}
        with pytest.raises(InputError, match=rf"model\.{name}: patch must be the forest's cell"):
            prepare_settings(parse_config(raw), None, 3)
    with pytest.raises(InputError, match="has no forest"):
        prepare_settings(replace(token_config(), forest=None), None, 3)


def test_channels_are_those_of_the_first_image_that_opens(data: Path, tmp_path: Path) -> None:
    found = find_cases(data)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    bad = replace(found.cases[0], image=tmp_path / "bad.png")
    assert usual_channels(replace(found, cases=(bad, *found.cases))) == 3
    with pytest.raises(InputError, match=r"bad\.png"):
        usual_channels(replace(found, cases=(bad,)))
    with pytest.raises(InputError, match="no cases"):
        usual_channels(CaseList((), None, "paired", data))


def test_groups_lists_and_splits_travel_along(data: Path, tmp_path: Path) -> None:
    rows = [f"case{i},images/case{i}.png,masks/case{i}.png,{['train', 'validation', 'test'][i % 3]}" for i in range(6)]
    for part in ("images", "masks"):
        (tmp_path / part).symlink_to(data / part)
    (tmp_path / "cases.csv").write_text("\n".join(["id,image,label,split", *rows]))
    (tmp_path / "groups.csv").write_text("\n".join(["id,patient", *(f"case{i},p{i % 2}" for i in range(6))]))
    raw, told = token_settings(), []
    raw["data"] |= {"groups": "groups.csv", "layout": "csv"}
    prepare_run(parse_config(raw), tmp_path, tmp_path / "out", options=JobOptions(workers=1), tell=told.append)
    cases = read_manifest(tmp_path / "out").case_list.cases
    assert [(c.id, c.group, c.split) for c in cases] == [
        (f"case{i}", f"p{i % 2}", ["train", "validation"][i % 3]) for i in (0, 1, 3, 4)
    ]
    assert (tmp_path / "out" / "groups.csv").read_text() == (tmp_path / "groups.csv").read_text()
    assert "2 test cases are left out" in told[0]


def test_one_odd_image_does_not_decide_for_all(tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", 4)
    found = find_cases(data)
    write_image(found.cases[0].image, np.zeros((40, 40), np.uint8))
    assert usual_channels(find_cases(data)) == 3
