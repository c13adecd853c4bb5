"""What drawings are made of: scales, curves, lanes of the graph, heat maps, bars, sums."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import INF, NAN, exploding_rnn, float16_overflow, large, nan_feature

from ckptdoctor.report.charts.bars import LogBars, share
from ckptdoctor.report.charts.curves import experiment_axes, experiment_views, log_view
from ckptdoctor.report.charts.features import array_views
from ckptdoctor.report.charts.graph import MOST_ROWS, model_graph
from ckptdoctor.report.charts.heat import MOST_COLUMNS, SHADES, heat_maps
from ckptdoctor.report.charts.lines import Curve, line_chart
from ckptdoctor.report.charts.scale import Scale, counting_scale, counting_ticks, scale_for
from ckptdoctor.report.charts.sums import BAR, cause_sums, margin
from ckptdoctor.report.charts.tables import MOST_TENSORS, gradient_rows, tensor_table
from ckptdoctor.report.document.run import first_nonfinite

FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(FLOATS), FLOATS)
def test_every_value_has_a_place_inside_the_drawing(values, value):
    scale = scale_for(values, 200.0, 0.0)
    assert 0 <= scale.at(value if math.isfinite(value) else 0.0) <= 200


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2))
def test_larger_values_are_never_lower(values):
    scale = scale_for(values, 200.0, 0.0)
    places = [scale.at(v) for v in sorted(values)]
    assert sorted(places, reverse=True) == places


@given(st.lists(FLOATS), st.integers(min_value=1, max_value=8))
def test_ticks_are_few_and_inside(values, most):
    scale = scale_for(values, 0.0, 100.0)
    ticks = scale.ticks(most)
    assert 1 <= len(ticks) <= most + 2 or not ticks
    assert all(0 <= tick.at <= 100 for tick in ticks)


def test_axes_become_logarithmic_over_decades_of_positive_values():
    assert [scale_for(v, 0, 1).log for v in ([1, 100], [1, 1000], [-1, 1000])] == [False, True, False]


def test_ticks_are_round_numbers():
    assert [t.label for t in Scale(0, 2, 0, 100).ticks(5)] == ["0", "0.5", "1", "1.5", "2"]
    assert [t.label for t in Scale(1e-3, 1e4, 0, 100, log=True).ticks(5)] == ["0.001", "0.1", "10", "1,000"]


def test_counting_ticks_are_whole_and_end_at_the_last_epoch():
    assert [t.label for t in counting_ticks(counting_scale([0, 13], 0, 100), 6)] == ["0", "5", "10", "13"]
    assert [t.label for t in counting_ticks(counting_scale([0, 1, 2], 0, 100), 6)] == ["0", "1", "2"]


def test_a_curve_is_broken_where_it_is_not_finite_and_the_gap_is_shown():
    chart = line_chart("loss", [Curve("loss", range(6), [3.0, 2.0, NAN, NAN, INF, 1.0])], axis="epoch")
    (line,) = chart.lines
    assert line.path.count("M") == 1
    assert len(line.dots) == 1
    assert [(r.kind, r.start, r.end) for r in line.runs] == [("NaN", 40.0, 60.0), ("Inf", 80.0, 80.0)]
    assert line.runs[0].title == "loss is NaN at 2 to 3"
    assert chart.has_lane


def test_a_curve_without_a_finite_value_draws_no_scale():
    chart = line_chart("loss", [Curve("loss", [0, 1], [NAN, NAN])], axis="epoch")
    assert chart.empty
    assert chart.height < 60
    assert chart.summary == "loss: NaN from epoch 0."


def test_long_curves_are_thinned_but_keep_their_extremes():
    values = [math.sin(i / 50) for i in range(20_000)]
    values[12_345] = 40.0
    chart = line_chart("loss", [Curve("loss", range(20_000), values)], axis="step")
    assert len(chart.lines[0].path) < 6_000
    assert (
        str(scale_for(values, chart.height - 4, chart.top + 4).at(40.0)).rstrip("0").rstrip(".") in chart.lines[0].path
    )


@given(st.lists(FLOATS, max_size=400))
def test_any_curve_can_be_drawn(values):
    chart = line_chart("x", [Curve("x", range(len(values)), values)], axis="step")
    numbers = [float(n) for n in re.findall(r"-?[\d.]+(?:e[+-]?\d+)?", chart.lines[0].path)]
    assert all(math.isfinite(n) and -1 <= n <= 1001 for n in numbers)


def test_the_words_of_a_drawing_say_what_it_shows():
    chart = line_chart("loss", [Curve("loss", [0, 1, 2], [3.0, 1.0, NAN])], axis="epoch")
    assert chart.summary == "loss: 3 at epoch 0, 1 at epoch 1, between 1 and 3; NaN from epoch 2."


def test_loss_rate_and_checkpoints_share_one_axis():
    report = exploding_rnn()
    view, strip = log_view(report, report.evidence.log)
    assert [panel.title for panel in view.panels] == ["loss", "learning rate"]
    assert len({panel.x_ticks for panel in view.panels}) == 1
    assert strip.aligned
    assert {"resume here", "last healthy", "first bad"} == {mark.tag for mark in strip.marks if mark.tag}


def test_a_constant_learning_rate_is_a_sentence_not_a_drawing():
    from dataclasses import replace

    report = exploding_rnn()
    log = report.evidence.log
    flat = replace(log.find("learning_rate"), values=(0.1,) * 14)
    view, _ = log_view(report, replace(log, series=(log.find("loss"), flat)))
    assert len(view.panels) == 1
    assert "The learning rate was 0.1 throughout." in view.notes


def test_the_first_nonfinite_value_of_a_log_is_the_earliest():
    assert first_nonfinite(exploding_rnn().evidence.log).name == "val_loss"


def test_experiments_share_one_scale_that_shows_whether_they_learn():
    replay = exploding_rnn().evidence.replay
    views = experiment_views(replay)
    assert sorted({v.chart.height for v in views if v.chart}) == [72]
    assert "curves that leave went beyond that" in experiment_axes(replay)
    path = views[0].chart.lines[0].path
    places = [float(p.split(" ")[1]) for p in path[1:].split("L")]
    assert max(places) - min(places) > 10  # the healed loss visibly falls


def test_the_graph_has_a_row_a_layer_and_marks_origin_and_spread():
    graph = model_graph(float16_overflow())
    assert 32 == len(graph.rows) == graph.total
    assert [row.title for row in graph.rows if row.state == "origin"] == ["block3_conv_a"]
    spread = [row.title for row in graph.rows if any(e.tone == "spread" for e in row.edges)]
    assert "block3_relu_a" in spread
    assert "block2_add" not in spread


def test_every_edge_of_the_graph_is_drawn_once_into_its_taker():
    report = float16_overflow()
    rows = {row.title: row for row in model_graph(report).rows}
    for layer in report.evidence.spec.layers:
        arriving = [
            e for e in rows[layer.name].edges if e.path.endswith("V15") or e.path.endswith(f"{rows[layer.name].x} 15")
        ]
        assert len(layer.inbound) == len(arriving), layer.name


def test_branches_stand_in_lanes_of_their_own():
    rows = {row.title: row for row in model_graph(float16_overflow()).rows}
    assert rows["block0_shortcut"].x != rows["block0_bn_b"].x


@pytest.mark.parametrize("layers", [61, 200, 1000])
def test_large_models_are_grouped_without_losing_the_origin(layers):
    report = large(layers)
    graph = model_graph(report)
    assert len(graph.rows) <= MOST_ROWS
    assert layers + 1 == sum(len(row.names) for row in graph.rows)
    (origin,) = [row for row in graph.rows if row.state == "origin"]
    assert (report.diagnosis.origin.layer,) == origin.names


def test_groups_hold_one_state():
    for row in model_graph(large(200)).rows:
        if len(row.names) > 1:
            assert row.words in ("finite", "all non-finite", "no weights")


def test_heat_maps_shade_finite_norms_and_mark_the_others():
    weights, gradients = heat_maps(exploding_rnn())
    first = weights.rows[0]
    assert 0 <= min(c.shade for c in first.cells if c.state == "finite") < max(c.shade for c in first.cells)
    assert max(c.shade for c in first.cells) == SHADES - 1
    assert [c.state for c in first.cells[-2:]] == ["bad", "bad"]
    assert first.cells[-1].text == "✗ all"
    assert gradients.title == "Size of the gradients, from the optimizer's memory"


def test_heat_maps_keep_the_telling_columns():
    import dataclasses

    report = large(60, checkpoints=40)
    timeline = dataclasses.replace(report.evidence.timeline, resume_from=3)
    report = dataclasses.replace(report, evidence=dataclasses.replace(report.evidence, timeline=timeline))
    (weights, _) = heat_maps(report)
    shown = [short for short, _, _ in weights.columns]
    assert len(shown) == MOST_COLUMNS
    assert {"0", "3", "37", "38", "39"} <= set(shown)
    assert weights.hidden_columns == 24


def test_the_tensor_table_keeps_the_telling_rows_of_a_large_model():
    report = large(1000)
    table = tensor_table(report)
    assert len(table.rows) == MOST_TENSORS
    assert MOST_TENSORS + table.hidden == 2000
    assert report.diagnosis.origin.layer in {row.layer for row in table.rows}
    assert table.hidden == sum(int(row.tensors.replace(",", "")) for row in table.rest)


def test_gradients_are_sampled_evenly_along_the_depth():
    rows = gradient_rows(large(400))
    assert len(rows) == 40
    assert rows[0].name == "stage_000/dense_0000/kernel"


@given(st.floats(min_value=0, max_value=1e30), st.floats(min_value=1e-30, max_value=1e30))
def test_a_share_is_full_only_when_it_is_all(part, whole):
    length = share(part, whole)
    assert (length == 20) == (part >= whole)
    assert (length == 0) == (part <= 0)


def test_bars_show_orders_of_magnitude():
    bars = LogBars.over([1e-4, 1.0, None, NAN])
    assert [bars.length(v) for v in (1e-4, 1e-2, 1.0, None, NAN)] == [1, 11, 20, 0, 0]


def test_the_sum_of_evidence_is_drawn_on_one_scale():
    sums = cause_sums(nan_feature())
    assert [s.wins for s in sums] == [True, False, False, False]
    for term in (t for s in sums for t in (*s.terms, s.total_term)):
        assert 0 <= term.x <= 2 * BAR
        assert term.x + term.width <= 2 * BAR
        assert (term.x == BAR) == term.favours


def test_the_margin_says_what_would_have_made_it_lose():
    words = margin(nan_feature())
    assert "It leads labels by 11.2 log-odds" in words
    assert "Without its strongest term (CKD401-1, +4.1) it would still lead." in words


def test_features_with_nonfinite_entries_are_marked_and_ranges_share_a_scale():
    x, _ = array_views(nan_feature().evidence.batches)
    assert [f.index for f in x.features if f.bad] == [2]
    assert all(0 <= f.whisker.low <= f.whisker.box <= f.whisker.high <= 120 for f in x.features)
    assert x.notes == ("non-finite in batch 0 row 5", "non-finite in feature 2")
