"""Where a step's time goes, on tiny runs of every default contender: parts, shares, sizes, and the note."""

from dataclasses import replace

import pytest

from patchforest.bench import overhead
from patchforest.bench.run import Row


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(overhead, "WARM", 1)
    monkeypatch.setattr(overhead, "STEPS", 2)


def test_every_part_of_default_contenders_is_found_and_noted(settings):
    contenders = overhead.plan(settings)
    assert [c.name for c in contenders] == list(overhead.CONTENDERS)
    rows = [Row(c, overhead.work(c, settings.out)) for c in contenders[:3]]
    adaptive, shf, unet = (r.result for r in rows)
    every = {
        "crop, augment",
        "collate",
        "encoder",
        "decoder",
        "loss",
        "gradients",
        "clip",
        "optimiser",
        "moving average",
    }
    forests = {"detail map", "forest", "stem", "gather", "embed"}
    for result in (adaptive, shf):
        assert every | forests <= set(result["step"])
        assert {"encoder backward", "stem backward", "embed backward"} <= set(result["step"])
        assert forests | {"decode", "read, scale", "encoder", "decoder", "blend, enlarge"} <= set(result["prediction"])
        assert 0 < overhead.share_of_patching(result["step"]) < 1
    assert "paint" in shf["prediction"]
    assert not forests & set(unet["step"])
    assert not any(name.endswith("backward") for name in unet["prediction"])
    assert adaptive["tokens"] == 16
    assert unet["tokens"] == 0
    assert "decode" not in adaptive["step"]
    assert adaptive["decode"] > 0
    note = overhead.note(rows, settings)
    training, prediction = note.tables
    assert training.header == ("part", "APF-UNETR", "SHF", "U-Net 2x")
    cells = {line[0]: line[1:] for line in training.rows}
    assert cells["tokens a window"][0] == "16"
    assert cells["tokens a window"][2] == "–"
    assert " / " in cells["encoder"][0]
    assert cells["detail map"][2] == "–"
    assert cells["**patching**"][2] == "–"
    assert prediction.rows[0][0] == "decode"
    total = float(cells["**a step**"][0].replace(",", ""))
    assert total == pytest.approx(sum(adaptive["step"].values()), abs=0.51)


def test_functions_are_their_own_again(settings):
    from patchforest.data import samples
    from patchforest.models import refined, trunk
    from patchforest.nn.raster import ForestBatch
    from patchforest.tree import cut

    def functions():
        own = vars(ForestBatch)["stack"], refined.refine, refined.carry
        return samples.open_picture, trunk.gather_batch, cut.detail_map, *own

    before = functions()
    overhead.work(overhead.plan(replace(settings, contenders=("SHF",)))[0], settings.out)
    assert before == functions()


@pytest.mark.parametrize("name", ["SHF, refined", "APF-UNETR, refined"])
def test_a_second_look_is_patching_too(settings, name):
    deep = replace(settings, contenders=(name,), changes=("model.depth=2",))
    (contender,) = overhead.plan(deep)
    result = overhead.work(contender, settings.out)
    assert {"second forest", "carry states", "carry states backward", "gather", "gather backward"} <= set(
        result["step"]
    )
    assert "second forest backward" not in result["step"]  # no gradient flows through the choice of leaves
    assert {"second forest", "carry states"} <= set(result["prediction"])
    for parts in (result["step"], result["prediction"]):
        without = {n: ms for n, ms in parts.items() if "second" not in n and "carry" not in n}
        assert overhead.share_of_patching(parts) > overhead.share_of_patching(without)
    cells = {line[0]: line[1] for line in overhead.note([Row(contender, result)], deep).tables[0].rows}
    assert " / " in cells["carry states"]


def test_sizes_keep_the_pixels_a_leaf(settings):
    made = overhead.plan(replace(settings, sizes=(64, 128), contenders=("APF-UNETR", "U-Net 2x")))
    assert [(c.set, c.name) for c in made] == [
        ("discs 64", "APF-UNETR"), ("discs 64", "U-Net 2x"), ("discs 128", "APF-UNETR"), ("discs 128", "U-Net 2x"),
    ]  # fmt: skip
    assert "data.window=64" in made[0].changes  # the recipe's 32 pixels have 16 leaves
    assert "forest.budget=64" in made[0].changes
    assert "data.window=32" in made[1].changes
    assert "forest.budget=256" in made[2].changes


def test_middle_is_the_median_part_by_part():
    steps = [{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0, "b": 1.0}]
    assert overhead.middle(steps) == {"a": 2.0, "b": 1.0}


def test_share_of_patching_by_hand():
    parts = {"detail map": 1.0, "forest": 2.0, "gather": 3.0, "gather backward": 4.0, "encoder": 10.0}
    assert overhead.share_of_patching(parts) == 0.5
    twice = {**parts, "second forest": 4.0, "carry states": 3.0, "carry states backward": 3.0}
    assert overhead.share_of_patching(twice) == pytest.approx(20 / 30)
