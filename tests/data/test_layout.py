"""Files are paired by name in every layout, and what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchforest.data.layout import Case, find_cases, read_groups, select_cases
from patchforest.errors import InputError


def touch(root: Path, *names: str) -> Path:
    """Empty files: no pixel is read here."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def nnunet(root: Path, *names: str, **change: object) -> Path:
    description = {"channel_names": {"0": "R"}, "labels": {"background": 0, "x": 1}, "file_ending": ".png", **change}
    touch(root, *names)
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def test_paired_folders_by_stem(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/b.jpg",
        "images/a 1.PNG",
        "images/.DS_Store",
        "images/notes.txt",
        "masks/b.png",
        "masks/a 1.tif",
    )
    found = find_cases(tmp_path)
    assert found.layout == "paired"
    assert found.root == tmp_path
    assert [(c.id, c.image.name, c.label.name if c.label else "") for c in found.cases] == [
        ("a 1", "a 1.PNG", "a 1.tif"),
        ("b", "b.jpg", "b.png"),
    ]
    assert found.cases[0].group is found.cases[0].split is found.classes is None


def test_folders_below_images_are_kept_and_group(tmp_path: Path) -> None:
    touch(tmp_path, "images/v1/0.png", "images/v2/0.png", "labels/v1/0.png", "labels/v2/0.png")
    assert [(c.id, c.group) for c in find_cases(tmp_path).cases] == [("v1/0", "v1"), ("v2/0", "v2")]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["images/a.png", "masks/b.png"], "image a, mask b"),
        (["images/a.png", "images/a.jpg", "masks/a.png"], r"a\.jpg and a\.png"),
        (["images/a.png"], "no folder masks/ or labels/"),
        (["images/a.png", "masks/a.png", "labels/a.png"], "both masks/ and labels/"),
        (["images/a.mp4", "masks/a.mp4"], "holds no cases"),
        (["pictures/a.png"], "holds pictures"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, names: list[str], what: str) -> None:
    with pytest.raises(InputError, match=what):
        find_cases(touch(tmp_path, *names))


def test_images_alone_when_labels_are_not_required(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png")
    cases = find_cases(tmp_path, require_labels=False).cases
    assert [c.label is None for c in cases] == [False, True]


def test_missing_folder_and_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_cases(tmp_path / "absent")
    with pytest.raises(ValueError, match="layout must be"):
        find_cases(tmp_path, layout="coco")


def test_nnunet(tmp_path: Path) -> None:
    names = ["imagesTr/c_2_0000.png", "imagesTr/c_1_0000.png", "labelsTr/c_1.png", "labelsTr/c_2.png"]
    nnunet(tmp_path, *names, "imagesTs/t_0000.png")
    found = find_cases(tmp_path)
    assert (found.layout, found.classes) == ("nnunet", ("background", "x"))
    assert [(c.id, c.label, c.split) for c in found.cases] == [
        ("c_1", tmp_path / "labelsTr/c_1.png", None),
        ("c_2", tmp_path / "labelsTr/c_2.png", None),
    ]
    assert [(c.id, c.split) for c in find_cases(tmp_path, require_labels=False).cases][-1] == ("t", "test")
    touch(tmp_path, "labelsTs/t.png")
    assert find_cases(tmp_path).cases[-1].split == "test"


@pytest.mark.parametrize(
    ("names", "change", "what"),
    [
        (["imagesTr/c_0000.png", "imagesTr/c_0001.png", "labelsTr/c.png"], {}, "further channel"),
        (["imagesTr/c.png", "labelsTr/c.png"], {}, "CASE_0000"),
        (["imagesTr/c_0000.png"], {}, "image c"),
        (["imagesTr/c_0000.mha"], {"file_ending": ".mha"}, r"\.mha"),
        (["imagesTr/c_0000.png"], {"file_ending": None}, "lacks file_ending"),
        (["imagesTr/c_0000.png", "labelsTr/c.png", "imagesTs/c_0000.png", "labelsTs/c.png"], {}, "same id: c"),
    ],
)
def test_nnunet_refusals(tmp_path: Path, names: list[str], change: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        find_cases(nnunet(tmp_path, *names, **change))


def test_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png", "y/am.png", "x/b.png", "y/bm.png")
    table = tmp_path / "my.csv"
    table.write_text("image,mask,Patient,split\nx/b.png,y/bm.png,p2,val\nx/a.png,y/am.png,p1,train\n")
    found = find_cases(table)
    assert [(c.id, c.group, c.split) for c in found.cases] == [("x/b", "p2", "validation"), ("x/a", "p1", "train")]
    assert found.cases[0].label == tmp_path / "y/bm.png"
    (tmp_path / "manifest.csv").write_text("id,image,label\nfirst,x/a.png,y/am.png\n")
    assert [c.id for c in find_cases(tmp_path).cases] == ["first"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("picture,label\na.png,b.png\n", "columns label, picture"),
        ("image,label\n", "columns none"),
        ("image,label\nx.png,a.png\nz.png,a.png\n", r"do not exist: x\.png, z\.png"),
        ("image,label\na.png,\n", r"no label for a\.png"),
        ("image,label,split\na.png,a.png,dev\n", "split 'dev'"),
        ("image,label,id\na.png,a.png,../../etc\n", "leads out"),
        ("image,label,id\na.png,a.png,/etc\n", "leads out"),
        ("image,label\na.png,a.png\na.png,a.png\n", "same id: a"),
        ("image,label,group\na.png,a.png,g\nb.png,b.png,\n", "no group for b"),
    ],
)
def test_manifest_refusals(tmp_path: Path, text: str, what: str) -> None:
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=what) as error:
        find_cases(tmp_path / "m.csv")
    assert "m.csv" in str(error.value)


def test_manifest_ids_of_files_outside_stay_inside(tmp_path: Path) -> None:
    touch(tmp_path, "set/m.csv", "a.png")
    (tmp_path / "set/m.csv").write_text(f"image,label\n../a.png,{tmp_path}/a.png\n")
    assert find_cases(tmp_path / "set/m.csv").cases[0].id == "a"


def test_groups_are_found_in_a_table_beside(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    (tmp_path / "other.csv").write_text("name,patient_id\nz,1\n")
    assert [c.group for c in find_cases(tmp_path).cases] == [None, None]
    (tmp_path / "grades.csv").write_text("name,patient_id,grade\na.png,7,x\nb,8,y\n")
    assert [c.group for c in find_cases(tmp_path).cases] == ["7", "8"]
    (tmp_path / "grades.csv").write_text("name,patient_id\na,7\n")
    with pytest.raises(InputError, match="no patient_id for b"):
        find_cases(tmp_path)


def test_read_groups_refuses_what_is_unclear(tmp_path: Path) -> None:
    cases, table = [Case("a", Path("a.png"), None)], tmp_path / "g.csv"
    table.write_text("name,grade\na,1\n")
    with pytest.raises(InputError, match="name one column"):
        read_groups(table, cases)
    table.write_text("name,patient\na,1\na,2\n")
    with pytest.raises(InputError, match="two groups, 1 and 2"):
        read_groups(table, cases)


def test_lists_select_in_their_order(tmp_path: Path) -> None:
    cases = [Case(i, Path(i), None) for i in ("a", "b", "v/c.d")]
    path = tmp_path / "list.txt"
    path.write_text("# mine\nv/c.d\n\n a.png \n")
    assert [c.id for c in select_cases(cases, path)] == ["v/c.d", "a"]
    for text, what in (("a\nx\ny\n", "unknown cases x, y"), ("a\na\n", "twice: a"), ("#\n", "no cases")):
        path.write_text(text)
        with pytest.raises(InputError, match=what):
            select_cases(cases, path)


def test_shared_sets(shared_data: Path) -> None:
    glas, hrf = find_cases(shared_data / "glas"), find_cases(shared_data / "hrf")
    assert len({c.group for c in glas.cases}) == 15
    assert all(c.label and c.label.is_file() for c in glas.cases + hrf.cases)
    assert len(select_cases(hrf.cases, shared_data / "hrf" / "train.txt")) == len(hrf.cases) == 15


def test_a_folder_of_prepared_items_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    with pytest.raises(InputError, match="no data set we know"):
        find_cases(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(InputError, match="holds prepared items, not images"):
        find_cases(tmp_path)
