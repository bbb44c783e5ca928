"""Configurations: strict, named faults, overrides, round trip."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforest.errors import InputError
from patchforest.train.config import RunConfig, differences, load_config, parse_config, save_config

RECIPE = """
data: {window: 256, label_map: {0: 0, other: 1}, classes: [background, gland]}
forest: {budget: 256, criterion: gradient}
model: {name: shf, stem: [8, 16], q: null}
train: {max_cpu_minutes: 3, lr: 3e-3}
augment: {flip: 0.25}
"""


def recipe(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_values_arrive_with_their_types(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path))
    assert config.train.lr == 0.003  # YAML 1.1 alone reads "3e-3" as text
    assert config.train.max_cpu_minutes == 3.0
    assert config.data.label_map == {0: 0, "other": 1}
    assert config.data.labels == {0: 0, "other": 1}
    assert config.data.classes == ("background", "gland")
    assert config.model.stem == (8, 16)
    assert config.forest is not None
    assert config.forest.budget == 256
    assert config.augment.flip == 0.25


def test_round_trip_through_yaml_and_json(tmp_path: Path) -> None:
    config = load_config(recipe(tmp_path), ["data.intensity_window=[-200, 300]", "forest.root=64"])
    save_config(tmp_path / "saved.yaml", config)
    assert load_config(tmp_path / "saved.yaml") == config
    (tmp_path / "x.json").write_text('{"train": {"max_steps": 5, "lr": 1e-3}}')
    assert load_config(tmp_path / "x.json").train.max_steps == 5


def test_overrides_win_in_order_and_clear_what_they_exclude(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    changed = load_config(path, ["train.lr=1e-4", "train.lr=2.5e-4", "train.max_steps=7", "forest.uniform=16"])
    assert (changed.train.lr, changed.train.max_steps, changed.train.max_cpu_minutes) == (2.5e-4, 7, None)
    assert changed.forest is not None
    assert (changed.forest.uniform, changed.forest.budget) == (16, None)
    assert changed.forest.criterion == "gradient"
    assert load_config(path, ["forest=null"]).forest is None
    assert load_config(None, ["train.max_steps=1"]).train.max_steps == 1
    assert load_config(path, ["data.classes=[a, b, c]"]).data.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {max_step: 5}", r"recipe.yaml: unknown key train.max_step; did you mean train.max_steps\?"),
        ("trian: {max_steps: 5}", r"unknown key trian; did you mean train\?"),
        ("lr: 1", r"unknown key lr; did you mean train.lr\?"),
        ("train: {max_steps: 1, window: 5}", r"unknown key train.window; did you mean data.window\?"),
        ("train: {lr: fast, max_steps: 1}", r'train.lr is "fast" \(str\); give a valid number'),
        ("train: {max_steps: 1.5}", r"train.max_steps is 1.5 \(float\); give a valid integer"),
        ("train: {max_steps: true}", r"train.max_steps is true \(bool\)"),
        ("train: {max_steps: '7'}", r'train.max_steps is "7" \(str\)'),
        ("train: {max_steps: 1, schedule: linear}", r"train.schedule is .*'cosine' or 'milestones'"),
        ("train: {max_steps: 1, max_minutes: 2}", "set exactly one of max_steps, max_minutes, max_cpu_minutes"),
        ("data: {window: 64}", "train: set exactly one of max_steps.*got none"),
        ("train: {max_steps: 0}", "max_steps must be above 0"),
        ("train: {max_cpu_minutes: 1, num_workers: 2}", "set num_workers: 0"),
        ("train: 5", r"train is 5 \(int\); give a mapping"),
        ("forest: {budget: 3, threshold: 4.0}\ntrain: {max_steps: 1}", "forest: set exactly one of budget"),
        ("forest: {budget: many}\ntrain: {max_steps: 1}", "forest.budget is .*valid integer"),
        ("forest: {budgt: 3}\ntrain: {max_steps: 1}", r"did you mean forest.budget\?"),
        ("data: {label_map: {a: 1}}\ntrain: {max_steps: 1}", "data.label_map.*the word other"),
        ("data: {fold: 5}\ntrain: {max_steps: 1}", "fold must be 0 to 4"),
        ("data: {classes: [one]}\ntrain: {max_steps: 1}", "at least one more"),
        ("train: {max_steps: 2024-01-01}", "date"),
        ("train: {max_steps: !!python/object/apply:os.system ['true']}", "no valid YAML"),
        ("a: [", "no valid YAML at line"),
        ("- 1", "holds a list, not a mapping"),
    ],
)
def test_faults_end_in_one_line_that_names_them(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_config(recipe(tmp_path, text))
    assert "\n" not in str(error.value)
    assert "recipe.yaml" in str(error.value)


def test_faults_of_files_and_overrides(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.yaml"):
        load_config(tmp_path / "binary.yaml")
    with pytest.raises(InputError, match=r"train\.lr: is no setting"):
        load_config(None, ["train.lr"])
    with pytest.raises(InputError, match=r"unknown key train\.lrr"):
        load_config(None, ["train.lrr=1", "train.max_steps=1"])


def test_differences_name_settings_that_change_the_course() -> None:
    def config(**train: object) -> RunConfig:
        return parse_config({"train": {"max_steps": 5, **train}, "forest": {"budget": 9}})

    assert differences(config(), config()) == []
    assert differences(config(), config(num_workers=2, threads=1, checkpoint_minutes=1.0)) == []
    assert differences(config(), config(lr=0.01)) == ["train.lr: 0.001 → 0.01"]
    without = parse_config({"train": {"max_steps": 5}})
    assert any(d.startswith("forest") for d in differences(config(), without))


def test_a_run_without_end_and_a_map_without_spaces_are_refused() -> None:
    with pytest.raises(InputError, match="max_minutes must be above 0"):
        load_config(None, ["train.max_minutes=.inf"])
    with pytest.raises(InputError, match="space after each colon"):
        load_config(None, ["train.max_steps=1", "data.label_map={255:1}"])


@pytest.mark.parametrize("setting", ["data.mpp=1.0", "data.level=1", "data.downscale=2", "data.tissue=true"])
def test_what_is_for_images_does_not_go_with_volumes(setting: str) -> None:
    with pytest.raises(InputError, match=rf"{setting.partition('=')[0]} is for images"):
        load_config(None, ["train.max_steps=1", "volume.axes=[0]", setting])
