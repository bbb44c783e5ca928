"""No patient on both sides, every case held out once, the same split for the same seed, and honest refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from patchforest.data.layout import Case, CaseList, find_cases
from patchforest.data.splits import split_cases
from patchforest.errors import InputError


def cases(groups: Sequence[str | None], splits: Sequence[str | None] | None = None) -> CaseList:
    marks = splits or [None] * len(groups)
    rows = tuple(
        Case(f"c{k}", Path(f"{k}.png"), None, g, s) for k, (g, s) in enumerate(zip(groups, marks, strict=True))
    )
    return CaseList(rows, None, "paired", Path("set"))


def ids(side: tuple[Case, ...]) -> list[str]:
    return [c.id for c in side]


def test_folds_cover_everything_once_and_tear_no_group(rng: np.random.Generator) -> None:
    for _ in range(20):
        found = cases([f"g{k}" for k in rng.integers(0, 12, 60)])
        folds = int(rng.integers(2, 6))
        held = []
        for fold in range(folds):
            training, validation = split_cases(found, fold=fold, folds=folds, seed=3)
            assert not {c.group for c in training} & {c.group for c in validation}
            assert sorted(ids(training + validation)) == sorted(ids(found.cases))
            held += ids(validation)
        assert sorted(held) == sorted(ids(found.cases))


def test_folds_are_balanced_and_follow_the_seed() -> None:
    found = cases([None] * 23)
    sizes = [len(split_cases(found, fold=k)[1]) for k in range(5)]
    assert sorted(sizes) == [4, 4, 5, 5, 5]
    assert split_cases(found, seed=1) == split_cases(found, seed=1)
    assert split_cases(found, seed=1) != split_cases(found, seed=2)
    large = cases(["big"] * 10 + [f"g{k}" for k in range(10)])
    assert min(len({c.group for c in split_cases(large, fold=k, folds=2)[1]}) for k in range(2)) >= 2


def test_too_few_groups_says_what_to_do() -> None:
    with pytest.raises(InputError, match="3 groups, too few for 5 folds; set folds to 3"):
        split_cases(cases(["a", "b", "c", "c"]))
    with pytest.raises(InputError, match=r"1 groups.*list"):
        split_cases(cases(["a", "a"]), folds=2)
    with pytest.raises(ValueError, match="fold 5 of 5"):
        split_cases(cases([None] * 9), fold=5)


def test_lists_decide(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("c3\nc0\nc1\n")
    (tmp_path / "v.txt").write_text("c2\n")
    found = cases([None] * 5)
    training, validation = split_cases(found, train=tmp_path / "t.txt", validation=tmp_path / "v.txt")
    assert (ids(training), ids(validation)) == (["c3", "c0", "c1"], ["c2"])
    training, validation = split_cases(found, validation=tmp_path / "v.txt")
    assert (ids(training), ids(validation)) == (["c0", "c1", "c3", "c4"], ["c2"])
    training, validation = split_cases(found, train=tmp_path / "t.txt", folds=3)
    assert sorted(ids(training + validation)) == ["c0", "c1", "c3"]


def test_test_cases_train_only_when_named(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("c0\n")
    training, _ = split_cases(cases([None] * 3, [None, "test", None]), validation=tmp_path / "v.txt")
    assert ids(training) == ["c2"]


def test_lists_may_not_tear_groups_or_share_cases(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("c1\n")
    with pytest.raises(InputError, match="groups on both sides: a"):
        split_cases(cases(["a", "a", "b"]), validation=tmp_path / "v.txt")
    (tmp_path / "t.txt").write_text("c0\nc1\n")
    with pytest.raises(InputError, match="cases on both sides: c1"):
        split_cases(cases([None] * 3), train=tmp_path / "t.txt", validation=tmp_path / "v.txt")


def test_marks_of_the_manifest_decide_and_test_is_never_used() -> None:
    marks = ["train", "validation", "test", "train"]
    training, validation = split_cases(cases([None] * 4, marks))
    assert (ids(training), ids(validation)) == (["c0", "c3"], ["c1"])
    training, validation = split_cases(cases([None] * 4, ["train", "train", "test", "train"]), folds=3)
    assert sorted(ids(training + validation)) == ["c0", "c1", "c3"]
    with pytest.raises(InputError, match="not to c1"):
        split_cases(cases([None] * 2, ["train", None]))
    with pytest.raises(InputError, match="no cases for training"):
        split_cases(cases([None] * 2, ["validation", "validation"]))


def test_nnunet_splits_decide(tmp_path: Path) -> None:
    rows = tuple(Case(f"c{k}", Path(f"{k}.png"), None) for k in range(4))
    found = CaseList(rows, None, "nnunet", tmp_path)
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["c0"], "val": ["c1"]}, {"train": ["c3", "c2"], "val": ["c0"]}]))
    assert tuple(map(ids, split_cases(found, fold=1))) == (["c3", "c2"], ["c0"])
    for content, what in (
        ([{"train": ["c0"], "val": ["c1"]}], "has 1 folds, none numbered 1"),
        ({"train": []}, "is no list of folds|has 1 folds"),
        ([0, 0], "is no list of folds"),
        ([0, {"train": ["c9"], "val": ["c0"]}], "unknown cases c9"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=what):
            split_cases(found, fold=1)


def test_groups_of_a_table_replace_those_of_the_cases(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("id,slide\n" + "".join(f"c{k},{k % 2}\n" for k in range(6)))
    training, validation = split_cases(cases([None] * 6), folds=2, groups=tmp_path / "g.csv")
    assert {c.group for c in training} | {c.group for c in validation} == {"0", "1"}
    assert len({c.group for c in training}) == 1


def test_glas_is_split_by_patient(shared_data: Path) -> None:
    found = find_cases(shared_data / "glas")
    for fold in range(5):
        training, validation = split_cases(found, fold=fold)
        assert not {c.group for c in training} & {c.group for c in validation}
        assert 5 <= len(validation) <= 11
        assert len({c.group for c in validation}) >= 2
