"""Saved views: what they show, that their text can be read back, that it fits a tag."""

import json

import pytest

from search.space.dimension import Choice, Number
from search.space.space import make_space
from search.tracking.views import TAG_PREFIX, decode, encode, links_of_tags, view_link, view_tags, views

METRIC = "val/balanced_accuracy"
SPACE = make_space(
    {
        "optimizer.lr": Number(low=1e-5, high=1e-1, log=True),
        "freeze.depth": Number(low=0.0, high=1.0),
        "train.batch_size": Number(low=8, high=64, whole=True, log=True),
        "optimizer.name": Choice(("adamw", "sgd")),
        "optimizer.momentum": Number(low=0.0, high=0.9, when={"optimizer.name": ("sgd",)}),
    }
)


def made(space=SPACE, metric=METRIC):
    return views(space, metric=metric, study="pets-1", search_id="9c1d0000ffff")


def charts(**options):
    return {chart["type"]: chart for chart in made(**options)[0].state["compareRunCharts"]}


def test_a_view_is_read_back_from_its_tag_as_it_was():
    for view in made():
        assert decode(encode(view, time=7)) == (view.name, view.state)
        saved = json.loads(encode(view, time=7))
        assert (saved["createdAt"], saved["updatedAt"]) == (7, 7)
        assert saved["state"].startswith("deflate;")


def test_every_view_fits_an_experiment_tag_however_much_is_searched():
    many = make_space({f"section_{index}.a_long_name_{index}": Number(low=0.0, high=1.0) for index in range(200)})
    for space in (SPACE, many):
        for key, text in view_tags(made(space), time=1_700_000_000_000).items():
            assert len(text) < 20_000
            assert len(key) < 250


def test_views_show_the_trials_and_baselines_of_this_search_alone():
    kinds = "".join(f" AND tags.`search.kind` != '{kind}'" for kind in ("study", "refit", "gate", "refresh"))
    for view in made():
        assert view.state["searchFilter"] == f"tags.`search.id` = '9c1d0000ffff'{kinds}"


def test_parallel_coordinates_take_what_every_trial_has_with_logarithms():
    parallel = charts()["PARALLEL"]
    assert set(parallel["selectedParams"]) == {"log10_lr", "depth", "log10_batch_size", "optimizer.name"}
    assert parallel["selectedParams"][-1] == "optimizer.name"
    assert parallel["selectedMetrics"] == ["best/balanced_accuracy"]
    assert parallel["showAllRuns"] is True


def test_the_contour_is_over_the_first_two_ranges():
    contour = charts()["CONTOUR"]
    assert contour["xaxis"] == {"key": "depth", "type": "PARAM"}
    assert contour["yaxis"] == {"key": "log10_lr", "type": "PARAM"}
    assert contour["zaxis"] == {"key": "best/balanced_accuracy", "type": "METRIC"}


def test_curves_are_of_the_searchs_metric_by_epoch():
    line = charts()["LINE"]
    assert (line["metricKey"], line["selectedMetricKeys"], line["xAxisKey"]) == (METRIC, [METRIC], "step")


def test_a_space_without_ranges_has_no_contour_and_an_empty_one_curves_alone():
    assert set(charts(space=make_space({"optimizer.name": Choice(("adamw", "sgd"))}))) == {"PARALLEL", "LINE"}
    assert set(charts(space=make_space({}))) == {"LINE"}


@pytest.mark.parametrize(("metric", "ascending"), [(METRIC, False), ("val/loss", True)])
def test_the_leaderboard_has_the_best_trial_on_top(metric, ascending):
    state = made(metric=metric)[1].state
    assert state["orderByKey"] == f"metrics.`best/{metric.removeprefix('val/')}`"
    assert state["orderByAsc"] is ascending
    assert {"params.`lr`", "params.`momentum`", f"metrics.`{metric}`", "tags.`search.state`"} <= set(
        state["selectedColumns"]
    )


def test_links_open_the_views_in_machine_learning_mode():
    tags = view_tags(made(), time=1)
    links = links_of_tags("http://host:5000", "3", tags=tags | {"search.other": "x"})
    assert list(links) == ["pets-1: charts", "pets-1: leaderboard"]
    chart_key, table_key = (key.removeprefix(TAG_PREFIX) for key in tags)
    start = "http://host:5000/#/experiments/3/runs?workflowType=machine_learning"
    assert links["pets-1: charts"] == f"{start}&compareRunsMode=CHART&viewStateShareKey={chart_key}"
    assert links["pets-1: leaderboard"] == f"{start}&viewStateShareKey={table_key}"
    assert view_link("", "3", key="k", is_chart=False).startswith("/#/experiments/3/")


@pytest.mark.parametrize("text", ["", "{}", '{"name": "x", "state": "deflate;AAAA"}', '{"name": "x", "state": "{"}'])
def test_views_of_other_making_are_left_out(text):
    assert links_of_tags("", "3", tags={f"{TAG_PREFIX}other": text}) == {}
