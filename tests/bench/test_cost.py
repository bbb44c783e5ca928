"""The cost model: the ratios the papers imply, its limits, and that it calls itself a model."""

import pytest

from patchforest.bench import cost
from patchforest.bench.run import Row
from patchforest.bench.settings import Settings


@pytest.mark.parametrize(("tokens", "ratio"), [(1024, 59.6), (2116, 24.2), (4096, 9.6), (676, 96.3)])
def test_encoder_ratios_are_those_of_the_published_lengths(tokens, ratio):
    assert cost.encoder_flops(16384) / cost.encoder_flops(tokens) == pytest.approx(ratio, abs=0.06)


def test_encoder_flops_by_hand():
    # one block, N = 2, d = 3: qkv and out 8 N d², MLP 16 N d², scores and sum 4 N² d
    # an image of training of UNETR with patches of 4 pixels at 512²: 38 TFLOP
    assert cost.encoder_flops(2, width=3, depth=1) == 24 * 2 * 9 + 4 * 4 * 3
    assert 3 * cost.encoder_flops(16384) == pytest.approx(38e12, rel=0.01)


def test_decoder_bytes_grow_with_pixels_and_hardly_with_tokens():
    small, large = cost.decoder_bytes(1024, 4096), cost.decoder_bytes(1024, 8192)
    assert 3.9 < large / small <= 4.0
    assert cost.decoder_bytes(16384, 8192) / large < 1.05


def test_parameters_are_vit_b_and_little_more():
    assert 12 * 12 * 768**2 < cost.parameters() < 1.06 * 12 * 12 * 768**2


def test_cost_shrinks_with_devices_and_one_device_exchanges_nothing():
    one, many = cost.step_cost(1024, 4096, 1), cost.step_cost(1024, 4096, 64)
    assert one.network == 0 < many.network
    assert many.encoder == pytest.approx(one.encoder / 64)
    assert many.decoder == pytest.approx(one.decoder / 64)
    assert one.total == one.encoder + one.decoder


def test_large_images_leave_nothing_to_gain_and_small_ones_nearly_the_encoders_ratio():
    def gain(side):
        return cost.step_cost(16384, side, 1).total / cost.step_cost(1024, side, 1).total

    assert 45 < gain(512) < 59.7
    assert gain(65536) < 1.1


def test_published_speedups_have_the_papers_geometric_mean():
    assert cost.geometric_mean([row.speedup for row in cost.TABLE_II]) == pytest.approx(4.09, abs=0.01)


@pytest.mark.parametrize(("side", "devices"), [(256, 1), (512, 1), (1024, 4), (65536, 2048)])
def test_devices_follow_pixels_up_to_the_papers_most(side, devices):
    assert cost.devices_of(side) == devices


def test_note_says_what_it_is_and_prints_every_assumption(tmp_path):
    (contender,) = cost.plan(Settings(tmp_path, tmp_path))
    note = cost.note([Row(contender, cost.work(contender, tmp_path))], Settings(tmp_path, tmp_path))
    text = " ".join(note.lines)
    assert "not a measurement" in note.lines[0]
    m = cost.MI250X
    machine = (m.name, f"{m.peak / 1e12:g} TFLOP/s", f"efficiency {m.efficiency:g}", "1.6 TB/s", "12.5 GB/s")
    for value in (*machine, "16,384", "64 channels", "step of 16 images", "2,048"):
        assert value in text
    assert [row[2] for row in note.tables[0].rows[:3]] == ["59.6", "59.6", "24.2"]
    assert [row[-1] for row in note.tables[0].rows] == ["7.49", "7.61", "5.77", "2.29", "2.91", "3.80", "2.31", "4.09"]
