"""Curves of seeds as bands, the stability number, and runs found in a bench's folder."""

import numpy as np
import pytest

from patchforest.bench import curves
from patchforest.bench.contender import Contender
from patchforest.bench.run import Row, _write
from patchforest.bench.settings import Settings
from patchforest.errors import InputError


def test_a_steady_climb_is_stable_and_jumps_are_their_own_size():
    climb = [(float(k), 0.1 * k) for k in range(12)]
    assert curves.stability(climb) == pytest.approx(0, abs=1e-12)
    saw = [(float(k), 0.5 + 0.1 * (k % 2)) for k in range(12)]  # differences of ± 0.1
    assert curves.stability(saw) == pytest.approx(0.1, rel=0.02)


def test_only_the_second_half_counts():
    rng = np.random.default_rng(0)
    wild = [(float(k), float(v)) for k, v in enumerate(rng.random(10))]
    calm = [(float(k), 0.7) for k in range(10, 22)]
    assert curves.stability(wild + calm) == 0
    assert curves.stability(calm[:4] + [(30.0 + k, p[1]) for k, p in enumerate(wild)]) > 0.1


def test_few_points_have_no_stability():
    assert curves.stability([(0.0, 1.0)] * (curves.FEWEST - 1)) is None


def test_a_band_holds_every_seed_over_the_time_they_share():
    one, two = [(0.0, 0.0), (10.0, 1.0)], [(2.0, 0.2), (12.0, 0.2)]
    band = curves.band_of([one, two], places=9)
    assert band.time[0] == 2
    assert band.time[-1] == 10
    assert band.low[-1] == pytest.approx(0.2)
    assert band.high[-1] == pytest.approx(1.0)
    assert band.mean == pytest.approx([(a + 0.2) / 2 for a in np.linspace(0.2, 1.0, 9)])
    assert all(low <= mean <= high for low, mean, high in zip(band.low, band.mean, band.high, strict=True))


def test_a_band_of_one_seed_is_its_curve_and_of_none_an_error():
    band = curves.band_of([[(0.0, 1.0), (1.0, 3.0)]], places=3)
    assert band.mean == band.low == band.high == (1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="at least one run"):
        curves.band_of([])
    with pytest.raises(ValueError, match="points of every run"):
        curves.band_of([[(0.0, 1.0)], []])


def leave_run(out, contender, dice):
    folder = contender.folder(out) / "run"
    folder.mkdir(parents=True)
    lines = [f"{k},{2 * k},{1 - v},{v}" for k, v in enumerate(dice)]
    (folder / "metrics.csv").write_text("\n".join(["step,seconds,loss,dice", *lines]) + "\n")
    return Row(contender, {})


def test_runs_of_other_benches_become_a_note(tmp_path):
    left = [
        leave_run(tmp_path, Contender("quality", "glas", name, seed=seed), np.linspace(0.1, top, 8))
        for name, top in (("SHF", 0.7), ("U-Net 4x", 0.8))
        for seed in (0, 1)
    ]
    failed = Row(Contender("quality", "glas", "refined"), {}, "exit code 1")
    left += [leave_run(tmp_path, Contender(k, "glas", "SHF", seed=100), [0.1, 0.2]) for k in ("tune", "quality")]
    left += [leave_run(tmp_path, Contender("tune", "glas", "SHF", seed=0), [0.1, 0.2])]
    _write(tmp_path, {r.contender.key: r for r in [*left, failed]})
    settings = Settings(tmp_path, tmp_path)
    (contender,) = curves.plan(settings)
    assert contender.set == "quality, glas"
    assert contender.changes == tuple(r.contender.key for r in left[:4])
    note = curves.note([Row(contender, curves.work(contender, tmp_path / "anywhere"))], settings)
    assert [(n["contender"], n["seed"]) for n in note.numbers] == [
        ("SHF", 0), ("SHF", 1), ("U-Net 4x", 0), ("U-Net 4x", 1),
    ]  # fmt: skip
    assert set(note.charts) == {"quality-glas-dice", "quality-glas-loss"}
    assert note.charts["quality-glas-dice"].count("<polygon") == 2
    assert note.tables[0].rows[1][:4] == ("U-Net 4x", "2", "0.800 ± 0.000", "0.800 ± 0.000")
    (only,) = curves.plan(Settings(tmp_path, tmp_path, sets=("glas",), contenders=("SHF",)))
    assert only.changes == contender.changes[:2]


def test_a_folder_without_runs_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="bench quality"):
        curves.plan(Settings(tmp_path, tmp_path))
