"""What the benchmarks compute around their measurements; each one runs at its small size."""

from __future__ import annotations

import pytest
import torch
from benchmarks.accelerator import JOBS, Measured, count_operations, job_rows, jobs_of
from benchmarks.beside_janus import janus, millions, per_parameter
from benchmarks.measuring import Spread, Timing
from benchmarks.reporting import Row
from benchmarks.scaling import growth_rows, per_image
from benchmarks.scaling_plot import BACKGROUND, LogarithmicAxis, Panel, draw_panels
from benchmarks.sghc_lookup import flat_case, flat_search, hierarchical_case, tiled_flat_case
from PIL import ImageColor
from torch import Tensor, nn

from benchmarks import beside_janus, ema_step, encode_overhead, scaling, sghc_lookup, training_parts
from semhitok.quantizers import EMAQuantizer


@pytest.mark.parametrize("score_bytes", [1, 4 * 300 * 7, 2**20])
def test_flat_search_is_a_search_of_the_whole_table(score_bytes: int):
    z_NC, table_VC = torch.randn(50, 6), torch.randn(300, 6)
    nearest = (z_NC.double()[:, None] - table_VC.double()).square().sum(-1).argmin(1)
    assert torch.equal(flat_search(z_NC, table_VC, score_bytes), nearest)


def test_both_flat_sides_give_the_same_ids_and_sghc_ids_of_the_same_vocabulary():
    flat, tiled, ids = flat_case(40, 32, 4)(), tiled_flat_case(40, 32, 4)(), hierarchical_case(40, 32, 4)()
    assert isinstance(flat, Tensor)
    assert isinstance(tiled, Tensor)
    assert isinstance(ids, Tensor)
    assert torch.equal(flat, tiled)
    assert ids.shape == (40,)
    assert ids.min() >= 0
    assert 32 < ids.max() < 128  # joint ids, not semantic ones


def test_the_peer_of_the_ema_step_moves_its_codebook_as_ours_does():
    """Both sides do the same work: with equal codes and vectors the codebooks agree after a step."""
    sides = [case(512, 64) for case in (ema_step.our_case, ema_step.peer_case)]
    ours, peer = (next(cell for name, cell in _cells(side).items() if name == "quantizer") for side in sides)
    z_BND = _cells(sides[0])["z_BND"]
    codebook = peer._codebook
    codebook.embed.copy_(ours.codebook_KD[None])
    codebook.embed_avg.copy_(ours.sums_KD[None])
    codebook.cluster_size.copy_(ours.counts_K[None])
    ours.update(ours.assignments(z_BND, ours(z_BND).ids))
    peer(z_BND)
    torch.testing.assert_close(codebook.embed[0], ours.codebook_KD, rtol=1e-4, atol=1e-5)


def _cells(function) -> dict:
    return {
        name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True)
    }


@pytest.mark.parametrize(
    ("benchmark", "rows"),
    [(sghc_lookup, 2), (ema_step, 2), (encode_overhead, 1), (beside_janus, 6), (scaling, 10)],
)
def test_the_small_size_runs_and_judges_nothing(benchmark, rows: int, monkeypatch: pytest.MonkeyPatch):
    for module in (sghc_lookup, ema_step):  # that part starts processes; test_measuring has it
        monkeypatch.setattr(module, "memory_is_measurable", lambda: False)
    report = benchmark.measure(True)
    assert len(report.rows) == rows
    assert report.name == benchmark.__name__.rpartition(".")[2]
    assert all(row.ratio.median > 0 and row.aim is None for row in report.rows)


def test_the_parts_of_both_kinds_of_steps_are_all_seen():
    rows = training_parts.measure(True).rows[1:]
    parts = {"teacher", "encoder", "quantizer", "decoder", "backward", "optimizer", "rest"}
    for stage, expected in (("semantic", parts), ("pixel", parts | {"losses"})):
        shares = {row.left: row.ratio.median for row in rows if stage in row.what}
        assert shares.keys() == expected
        assert sum(shares.values()) == pytest.approx(1)  # a single measured step
        assert min(shares.values()) > 0


def timing(*seconds: float) -> Timing:
    return Timing(wall=seconds, cpu=tuple(2 * second for second in seconds))


def test_growth_is_against_the_smallest_size_of_the_same_curve():
    rows = growth_rows("N", {"a": {8: timing(6.0), 2: timing(2.0), 4: timing(3.0)}, "b": {2: timing(5.0)}})
    assert [(row.left, row.right, row.ratio.median) for row in rows] == [("a 4", "a 2", 1.5), ("a 8", "a 2", 3.0)]


def test_times_per_image_are_divided_by_the_images_of_the_batch():
    found = per_image({"encode": {1: timing(3.0), 4: timing(8.0, 4.0)}}, {1: 1, 4: 4})
    assert found == {"encode": {1: timing(3.0), 4: timing(2.0, 1.0)}}


def test_per_parameter_divides_each_side_by_its_own_images_and_parameters():
    row = Row.of_times("encode", ("ours", timing(12.0)), ("peer", timing(3.0)))
    found = per_parameter(row, 2, left_millions=6.0, right_millions=0.5)
    assert (found.left_amount.median, found.right_amount.median) == (1.0, 3.0)
    assert found.ratio.median == pytest.approx(1 / 3)
    assert found.cpu_ratio == pytest.approx(1 / 3)


def test_parameters_include_the_ema_codebook_and_not_its_statistics():
    assert millions(nn.Linear(3, 4), EMAQuantizer(10, 6), None) == pytest.approx((3 * 4 + 4 + 60) / 1e6)


def test_the_peer_is_the_published_72_million_parameter_tokenizer():
    with torch.device("meta"):
        assert millions(janus(256)) == pytest.approx(71.9, abs=0.1)


def test_a_logarithmic_axis_gives_equal_ratios_equal_lengths():
    axis = LogarithmicAxis.around([1.3, 100 / 1.3], 10, 50)
    assert [axis.place(value) for value in (1, 10, 100)] == pytest.approx([10, 30, 50])
    assert list(axis.ticks()) == [1, 2, 5, 10, 20, 50, 100]
    assert list(LogarithmicAxis(2.5, 12, 0, 1).ticks()) == [3, 5, 7, 10]


def test_curves_are_drawn_where_their_points_are():
    picture = draw_panels([Panel("title", "N", "ms", {"a": [(1, 1), (10, 10)]})], title="all")
    colour = ImageColor.getrgb("#d55e00")
    found = [
        (x, y)
        for x in range(70, picture.width)
        for y in range(picture.height)
        if picture.getpixel((x, y)) == colour and y > 115  # below the legend
    ]
    assert picture.getpixel((0, 0)) == ImageColor.getrgb(BACKGROUND)
    (left, lower), (right, upper) = min(found), max(found)
    assert lower > upper  # rises
    assert right > left
    assert (lower - upper) / (right - left) == pytest.approx((330 - 104) / (430 - 84), rel=0.05)  # the diagonal


def test_accelerator_rows_are_rates_memory_and_shares_of_the_peak():
    eager, compiled = Measured(timing(4.0), memory=600), Measured(timing(2.0), memory=300)
    rows = job_rows("job", 8, eager, compiled, operations=6e12, rate=12e12, source="data sheet")
    assert [row.ratio.median for row in rows] == [2.0, 0.5, 0.125, 0.25]
    assert (rows[0].left_amount, rows[0].right_amount) == (Spread.of([4.0]), Spread.of([2.0]))


def test_operations_are_two_for_each_multiplication_of_a_matrix_product():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert count_operations(lambda: a @ b) == 2 * 3 * 5 * 7


def test_the_jobs_of_the_accelerator_run_and_training_costs_most():
    jobs = jobs_of("nano", 1, "cpu", compiled=False)
    operations = {job: count_operations(operation) for job, operation in jobs.items()}
    assert tuple(operations) == JOBS
    assert operations["training step"] > 3 * operations["decode"] > 0
