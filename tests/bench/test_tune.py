"""Learning rates: the same tries for everybody, on training cases alone, and the best of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchforest.bench import tune as tuning
from patchforest.bench.contender import Contender
from patchforest.bench.kinds import KINDS, work_of
from patchforest.bench.quality import KIND
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings
from patchforest.bench.training import read_rates, train_and_score, tuned
from patchforest.bench.tune import inner_split, pick
from patchforest.data.layout import find_cases
from patchforest.train.config import load_config
from patchforest.train.fit import split
from tests.bench.conftest import row
from tests.train.runs import make_data


def test_the_best_rate_of_each_and_the_lowest_of_equals() -> None:
    rows = [
        (1e-3, row("a", Dice=0.5)), (3e-3, row("a", Dice=0.6)), (1e-2, row("a", Dice=0.6)),
        (1e-3, row("b", Dice=0.2)), (3e-3, Row(Contender("quality", "discs", "b"), {}, "broken")),
    ]  # fmt: skip
    assert pick(rows) == {
        ("discs", "a"): (3e-3, {"0.001": 0.5, "0.003": 0.6, "0.01": 0.6}),
        ("discs", "b"): (1e-3, {"0.001": 0.2}),
    }


def test_the_inner_split_sees_no_validation_case(settings: Settings) -> None:
    recipe = load_config(settings.recipe("discs"))
    found = find_cases(settings.data / "discs")
    training, validation = split(found, recipe)
    part = inner_split(recipe, "discs", settings)
    inner, held = split(found, load_config(settings.recipe("discs"), part.changes))
    assert {c.id for c in inner} | {c.id for c in held} == {c.id for c in training}
    assert not {c.id for c in held} & {c.id for c in inner}
    assert not {c.id for c in validation} & {c.id for c in (*inner, *held)}
    assert part.words == f"{len(held)} of its {len(training)} training cases, held out"


def test_groups_stay_whole(settings: Settings) -> None:
    groups = "image,patient\n" + "".join(f"case{i},p{i // 2}\n" for i in range(6))
    (settings.data / "discs" / "groups.csv").write_text(groups)
    recipe = load_config(settings.recipe("discs"), ["data.groups=groups.csv"])
    part = inner_split(recipe, "discs", settings)
    sides = split(find_cases(settings.data / "discs"), load_config(settings.recipe("discs"), part.changes))
    assert [len({c.group for c in side}) for side in sides] == [1, 1]


def test_one_training_image_cannot_be_split(settings: Settings) -> None:
    make_data(settings.data / "two", 2)
    (settings.recipes / "two.yaml").write_text(settings.recipe("discs").read_text().replace("folds: 3", "folds: 2"))
    part = inner_split(load_config(settings.recipe("two")), "two", settings)
    assert part.changes == ()
    assert "one training case" in part.words


def test_every_contender_tries_every_rate_on_the_same_split(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Contender] = []

    def run_all(contenders: Sequence[Contender], out: Path, **_: object) -> list[Row]:
        seen.extend(contenders)
        return [Row(c, {"Dice": 0.9 if "train.lr=0.01" in c.changes else 0.1}) for c in contenders]

    monkeypatch.setattr(tuning, "run_all", run_all)
    wanted = replace(settings, contenders=("U-Net 4x", "SHF"), rates=(1e-3, 1e-2), tune=True)
    settings.out.mkdir()
    before = {"rates": {"discs": {"UNETR": 0.5}, "other": {"SHF": 0.25}}, "chosen_on": {"other": "x"}}
    (settings.out / "learning_rates.json").write_text(json.dumps(before))
    assert KIND.tune is not None
    KIND.tune(wanted, lambda line: None)
    assert {c.kind for c in seen} == {tuning.KIND}
    assert [(c.name, c.seed) for c in seen] == [("U-Net 4x", 100)] * 2 + [("SHF", 100)] * 2
    assert len({c for job in seen for c in job.changes if c.startswith(("data.train", "data.validation"))}) == 2
    rates = {"discs": {"UNETR": 0.5, "U-Net 4x": 0.01, "SHF": 0.01}, "other": {"SHF": 0.25}}
    assert read_rates(settings.out) == rates
    assert tuned(settings, "discs", "SHF") == ("train.lr=0.01",)
    assert tuned(settings, "discs", "TransUNet") == ()
    assert set(json.loads((settings.out / "learning_rates.json").read_text())["chosen_on"]) == {"discs", "other"}


def test_every_try_is_scored_whatever_the_bench() -> None:
    assert work_of(tuning.KIND) is train_and_score
    assert tuning.KIND not in KINDS
    assert work_of("speed") is KINDS["speed"].work


def test_without_rates_there_is_nothing_to_try(settings: Settings) -> None:
    with pytest.raises(ValueError, match="--rates"):
        tuning.tune("quality", [], replace(settings, rates=()), lambda line: None)


def test_a_single_volume_is_divided_along_its_planes(settings: Settings, rng: np.random.Generator) -> None:
    from patchforest.io.volume import open_volume
    from patchforest.io.volume_array import ArrayVolume
    from patchforest.io.volume_label import read_label_volume
    from patchforest.io.volume_write import write_volume, write_volume_mask

    voxels = rng.integers(0, 200, (9, 8, 7)).astype(np.float32)
    label = (voxels > 100).astype(np.uint8)
    place = ArrayVolume(voxels, spacing=(3.0, 2.0, 1.0))
    for name in ("a", "b"):
        write_volume(settings.data / "ct" / "images" / f"{name}.nrrd", voxels, place)
        write_volume_mask(settings.data / "ct" / "labels" / f"{name}.nrrd", label, place)
    (settings.recipes / "ct.yaml").write_text(
        "data: {folds: 2, intensity_window: [0, 200]}\nvolume: {window: [4, 4, 4]}\ntrain: {max_steps: 1}\n"
    )
    recipe = load_config(settings.recipe("ct"))
    part = inner_split(recipe, "ct", settings)
    assert part.data is not None
    again = inner_split(recipe, "ct", settings)
    assert again == part
    training, held = split(find_cases(part.data), load_config(settings.recipe("ct"), part.changes))
    assert [c.id for c in (*training, *held)] == ["lower", "upper"]
    whole = [open_volume(c.image) for c in (*training, *held)]
    np.testing.assert_array_equal(np.concatenate([v.read()[..., 0] for v in whole]), voxels)
    assert {v.spacing for v in whole} == {(3.0, 2.0, 1.0)}
    labels = [read_label_volume(c.label) for c in (*training, *held) if c.label is not None]
    np.testing.assert_array_equal(np.concatenate(labels), label)
    assert [len(v) for v in labels] == [6, 3]
