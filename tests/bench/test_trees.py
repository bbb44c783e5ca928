"""Ceilings of trees: every method on every image, the oracle above all, and the tables that say so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from patchforest.bench import trees
from patchforest.bench.settings import Settings
from patchforest.bench.trees import (
    CONTENDERS,
    CRITERIA,
    EDGES,
    KIND,
    ORACLE,
    FirstLook,
    closed,
    mean_ceilings,
    plan,
    tokens_read,
    work,
)
from patchforest.tree.forest import build_forest
from tests.bench.conftest import row


@pytest.fixture
def small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(trees, "BUDGETS", ((8, 16), (8, 16)))
    return settings


def numbers(**ceilings: float) -> dict[str, Any]:
    of = {name.replace("_", " "): {"8": {"256": {"one": v, "two": v}}} for name, v in ceilings.items()}
    return {"ceilings": of, "score_seconds": dict.fromkeys(of, 0.5), "cases": ["one", "two"]}


def test_every_contender_but_the_image_is_trained(settings: Settings) -> None:
    planned = plan(settings)
    assert [c.name for c in planned] == list(CONTENDERS)
    changes = {c.name: c.changes for c in planned}
    assert "train.max_steps=2" in changes["scorer"]
    assert "model.name=scorer" in changes["scorer"]
    assert not [c for c in changes[CRITERIA] if "max_" in c]
    twice = plan(Settings(settings.data, settings.out, settings.recipes, sets=("discs",), seeds=(0, 1)))
    assert [c.name for c in twice].count(CRITERIA) == 1
    assert len(twice) == 5


def test_criteria_are_measured_on_images_unseen(small: Settings, tmp_path: Path) -> None:
    found = work(plan(small)[0], tmp_path / "run")
    assert len(found["cases"]) == 2
    for q in ("8", "16"):
        for budget in ("8", "16"):
            by_method = {name: values[q][budget] for name, values in found["ceilings"].items()}
            assert all(set(by_case) == set(found["cases"]) for by_case in by_method.values())
            best = np.mean(list(by_method[ORACLE].values()))
            assert all(best >= np.mean(list(by_case.values())) - 1e-9 for by_case in by_method.values())
    assert set(found["score_seconds"]) == set(found["ceilings"])


def test_what_was_learned_is_measured_like_it(small: Settings) -> None:
    small_scorer = ("model.name=scorer", "model.stem=[4,4]", "model.downscale=1", "data.window=32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONTENDERS, "scorer", small_scorer)
        planned = plan(small)
        for contender in planned[1:]:
            found = work(contender, contender.folder(small.out))
            assert list(found["ceilings"]) == [contender.name]
            assert found["steps"] == 2
            assert all(0 < v <= 1 for v in found["ceilings"][contender.name]["8"]["16"].values())
            assert ("first_tokens" in found) == (contender.name == "two looks")
        assert list(found["first_tokens"]["two looks"]) == found["cases"]
        assert all(tokens > 0 for tokens in found["first_tokens"]["two looks"].values())


def test_a_second_look_is_of_the_image_it_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[np.ndarray] = []

    def answer(bundle: object, image: np.ndarray, **options: object) -> Any:
        asked.append(image)
        values = np.full((1, *image.shape[:2]), 0.01 + image.max() / 512, np.float32)
        return SimpleNamespace(probability=values, tokens=100 * len(asked))

    monkeypatch.setattr("patchforest.infer.predict.predict", answer)
    monkeypatch.setattr(trees, "precision_of", lambda config, bundle: "fp32")
    method = FirstLook(SimpleNamespace(config=None, bundle=None))  # type: ignore[arg-type]
    dark, bright = np.zeros((32, 48, 3), np.uint8), np.full((32, 48, 3), 200, np.uint8)
    first = method(dark, dark[..., 0], 32, 2)
    method(dark, dark[..., 0], 32, 4)
    assert len(asked) == 1
    second = method(bright, bright[..., 0], 32, 2)
    assert len(asked) == 2
    assert second[-1].sum() > 2 * first[-1].sum()
    build_forest(second, shape=(32, 48), cell=8, root=32, budget=8)
    assert method.tokens == [100, 200]


def test_shares_by_hand() -> None:
    rows = [
        row(CRITERIA, kind="trees", **numbers(uniform=0.5, edges=0.6, oracle=0.8)),
        row("scorer", kind="trees", **numbers(scorer=0.6)),
        row("scorer", seed=1, kind="trees", **numbers(scorer=0.8)),
    ]
    ceilings = mean_ceilings(rows)
    assert list(ceilings) == ["uniform", EDGES, "scorer", ORACLE]
    key = ("8", "256")
    assert ceilings["scorer"][key] == pytest.approx(0.7)
    assert closed(ceilings, "scorer", key) == pytest.approx(0.5)
    assert closed(ceilings, "uniform", key) == pytest.approx(-0.5)
    assert closed({"scorer": ceilings["scorer"]}, "scorer", key) is None
    flat = {EDGES: {key: 1.0}, ORACLE: {key: 1.0}, "scorer": {key: 1.0}}
    assert closed(flat, "scorer", key) is None
    note = KIND.note(rows, Settings(Path("d"), Path("o")))
    assert note.tables[0].header == ("forest by", "q 8, 256", "CPU s")
    assert note.tables[0].rows[2] == ("scorer", "0.7000", "0.50")
    assert note.tables[1].rows == (("uniform", "-50%"), ("scorer", "50%"))


def test_two_looks_say_what_both_of_them_read() -> None:
    image, looks = numbers(edges=0.6, oracle=0.8), numbers(**{"two looks": 0.7})
    for by_q in (*image["ceilings"].values(), *looks["ceilings"].values()):
        by_q["8"]["512"] = {"three": 0.9}  # a larger image has other budgets
    first = {"two looks": {"one": 100, "two": 300, "three": 1000}}
    rows = [
        row(CRITERIA, kind="trees", **image),
        row("two looks", kind="trees", **{**looks, "first_tokens": first}),
    ]
    assert tokens_read(rows) == {"two looks": {("8", "256"): 456.0, ("8", "512"): 1512.0}}
    ceilings, shares = KIND.note(rows, Settings(Path("d"), Path("o"))).tables
    assert ceilings.rows[-1] == ("two looks: tokens read", "456", "1,512", "–")
    assert shares.rows[-1] == ("two looks: tokens read", "456", "1,512")
    before = row("two looks", kind="trees", **looks)  # of a bench that did not count them
    assert tokens_read([before]) == {}
