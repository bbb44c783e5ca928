"""Arms that differ in their trees alone, what fresh trees draw, and a small run from training to note."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from patchforest.bench import randomness
from patchforest.bench.randomness import FIXED, FRESH, UNIFORM
from patchforest.data.layout import Case, find_cases
from patchforest.data.samples import WindowSamples
from patchforest.io.write import write_image
from patchforest.models.bundle import ModelSpec
from patchforest.models.config import ModelConfig
from patchforest.train.config import load_config
from patchforest.tree.cut import cut_forest
from patchforest.values import ForestPolicy
from tests.bench.conftest import row

NUMBERS = {
    "Dice_trees": 0.6, "BoundaryF2": 0.3, "BoundaryF2_trees": 0.35, "Dice_training": 0.8, "tokens": 64, "steps": 9,
    "seam": 0.02, "seam_trees": 0.01, "inside": 0.03, "kept_leaves": 0.75,
}  # fmt: skip


def test_arms_read_as_many_tokens_and_differ_in_their_trees_alone(settings):
    changed = replace(settings, changes=("forest.budget=9", "train.batch=3"))
    made = {c.name: c for c in randomness.plan(changed)}
    assert list(made) == [f"{n}, {a}" for n in ("SHF", "APF-UNETR") for a in (FIXED, FRESH, UNIFORM)]
    configs = {n: load_config(c.recipe, c.changes) for n, c in made.items()}
    for network in ("SHF", "APF-UNETR"):
        fixed, fresh, uniform = (configs[f"{network}, {arm}"] for arm in (FIXED, FRESH, UNIFORM))
        assert fixed.forest == replace(fresh.forest, fresh=False)
        assert fresh.forest.fresh
        height, width = uniform.data.window_shape
        assert fixed.train.batch == 3
        assert fixed.forest.budget == (height // uniform.forest.uniform) * (width // uniform.forest.uniform)
        assert uniform.forest.budget is None
        for other in (fresh, uniform):
            assert replace(other, forest=None) == replace(fixed, forest=None)


@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_means_that_edges_are_drawn_for_every_sample(settings, fresh):
    """With augmentation off and windows as large as the image, nothing but the tree can differ between samples."""
    cases = find_cases(settings.data / "discs").cases[:1]
    policy = ForestPolicy(criterion="edges", cell=8, budget=20, fresh=fresh)
    samples = WindowSamples(cases, policy=policy, window=(56, 72), samples_per_epoch=6, seed=0)
    forests = [samples[k].forest for k in range(6)]
    leaves = {tuple(map(tuple, np.column_stack([f.origin, f.size]).tolist())) for f in forests}
    assert (len(leaves) > 1) == fresh


def test_every_arm_is_trained_scored_and_noted(settings, monkeypatch):
    monkeypatch.setattr(randomness, "SEAM_CASES", 1)
    monkeypatch.setattr(randomness, "TRAINING_CASES", 2)
    made = [c for c in randomness.plan(settings) if c.name in (f"SHF, {FRESH}", f"SHF, {UNIFORM}")]
    rows = [randomness.Row(c, randomness.work(c, settings.out / c.name)) for c in made]
    fresh, uniform = (r.result for r in rows)
    for result in (fresh, uniform):
        assert 0 <= result["Dice"] <= 1
        assert 0 <= result["Dice_training"] <= 1
        assert np.isfinite(result["seam"])
    assert fresh["Dice_trees"] is not None
    assert fresh["seam_trees"] is not None
    assert 0 <= fresh["kept_leaves"] <= 1
    assert uniform["Dice_trees"] is None
    assert uniform["kept_leaves"] == 1
    note = randomness.note(rows, settings)
    assert "| –" not in note.tables[0].rows[0][1]
    assert note.tables[0].rows[1][2] == "–"
    assert len(note.tables[-1].rows) == 0  # an arm is missing


def test_the_order_names_the_last_arm_and_the_spread(settings):
    rows = [
        row(f"SHF, {arm}", seed=seed, kind="randomness", Dice=dice + 0.01 * seed, **NUMBERS)
        for arm, dice in ((FIXED, 0.5), (FRESH, 0.6), (UNIFORM, 0.55))
        for seed in (0, 1)
    ]
    made = randomness.note(rows, settings)
    assert made.tables[-1].rows == (("discs, SHF", "+0.100", "+0.050", "0.007", FIXED),)
    line = made.tables[0].rows[0]
    assert line[1] == "0.505 ± 0.007"
    assert line[7] == "0.295 ± 0.007"  # training less validation
    assert line[11] == "75 %"
    assert "SHF, fixed tree, 4 at once" in made.charts["discs"]


def test_shared_leaves_are_those_of_the_models_own_scorer(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    write_image(tmp_path / "i.png", image)
    spec = ModelSpec(ModelConfig(name="apf_unetr"), ForestPolicy(criterion="gradient", cell=8, budget=16), ("a", "b"))
    given = []

    def cut(*arguments, criterion, **more):
        given.append(criterion)
        return cut_forest(*arguments, **more)

    monkeypatch.setattr("patchforest.tree.cut.cut_forest", cut)
    monkeypatch.setattr("patchforest.infer.scorer.scorer_of", lambda bundle: "its own")
    shared = randomness._kept(SimpleNamespace(bundle=SimpleNamespace(spec=spec)), Case("i", tmp_path / "i.png", None))
    assert given == ["its own"] * randomness.TREES
    assert 0 < shared <= 1
