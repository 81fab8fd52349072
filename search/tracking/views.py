"""Saved views of a search in MLflow's pages: charts over all trials, a leaderboard.

MLflow 3.17 keeps a view as an experiment tag ``mlflow.sharedViewState.<id>``, its state as deflated JSON in base64.
The format is the pages' own and documented nowhere: a view that a later version cannot read is a view less, no more.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.space.dimension import Number
from search.space.space import Space
from search.tracking.projection import best_name, is_log, short_names
from trainable.metrics import DIRECTIONS

TAG_PREFIX = "mlflow.sharedViewState."
FORMAT = "v1"
_DEFLATED = "deflate;"
_SECTION = "search-charts"
_MOST_PARAMS = 8
_NOT_SHOWN = ("study", "refit", "gate", "refresh")  # kinds of runs: trials and baselines are
_CURVES_SHOWN = 100
_CHARTS_QUERY = "&compareRunsMode=CHART"


@dataclass(frozen=True, kw_only=True)
class View:
    """One saved view: ``state`` is what MLflow's run page restores."""

    key: str
    name: str
    is_chart: bool
    state: Mapping[str, Any]


def views(space: Space, *, metric: str, study: str, search_id: str) -> list[View]:
    """The views of one search: charts of its trials, its leaderboard."""
    common = _common_state(metric=metric, search_id=search_id)
    charts = common | {"compareRunSections": [_section()], "compareRunCharts": _charts(space, metric=metric)}
    table = common | {"selectedColumns": _columns(space, metric=metric)}
    return [
        View(key=f"{study}-{search_id[:8]}-charts-{FORMAT}", name=f"{study}: charts", is_chart=True, state=charts),
        View(
            key=f"{study}-{search_id[:8]}-leaderboard-{FORMAT}",
            name=f"{study}: leaderboard",
            is_chart=False,
            state=table,
        ),
    ]


def view_tags(saved: Sequence[View], *, time: int) -> dict[str, str]:
    """Experiment tags that hold the views; ``time`` in milliseconds is when they were made."""
    return {f"{TAG_PREFIX}{view.key}": encode(view, time=time) for view in saved}


def encode(view: View, *, time: int) -> str:
    """A view as the text of its tag."""
    state = base64.b64encode(zlib.compress(json.dumps(view.state).encode())).decode()
    return json.dumps({"name": view.name, "createdAt": time, "updatedAt": time, "state": _DEFLATED + state})


def decode(text: str) -> tuple[str, dict[str, Any]]:
    """Name and state of a view from the text of its tag."""
    saved = json.loads(text)
    packed = base64.b64decode(saved["state"].removeprefix(_DEFLATED))
    return saved["name"], json.loads(zlib.decompress(packed))


def experiment_link(page: str, experiment_id: str) -> str:
    """The list of an experiment's runs. Without the workflow type MLflow opens an empty page about traces."""
    return f"{page}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def view_link(page: str, experiment_id: str, *, key: str, is_chart: bool) -> str:
    """A saved view; ``page`` may be empty, the link then stays on the server it is shown by."""
    mode = _CHARTS_QUERY if is_chart else ""
    return f"{experiment_link(page, experiment_id)}{mode}&viewStateShareKey={key}"


def links_of_tags(page: str, experiment_id: str, *, tags: Mapping[str, str]) -> dict[str, str]:
    """The views that an experiment's tags hold, by name; those that cannot be read are left out."""
    links = {}
    for tag, text in tags.items():
        if tag.startswith(TAG_PREFIX):
            try:
                name, state = decode(text)
            except (ValueError, KeyError, zlib.error):
                continue
            links[name] = view_link(
                page, experiment_id, key=tag.removeprefix(TAG_PREFIX), is_chart="compareRunCharts" in state
            )
    return links


def _common_state(*, metric: str, search_id: str) -> dict[str, Any]:
    return {
        "searchFilter": f"tags.`search.id` = '{search_id}'"
        + "".join(f" AND tags.`search.kind` != '{kind}'" for kind in _NOT_SHOWN),
        "orderByKey": f"metrics.`{best_name(metric)}`",
        "orderByAsc": DIRECTIONS[metric] == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsHiddenMode": "SHOW_ALL",
    }


def _section() -> dict[str, Any]:
    return {
        "uuid": _SECTION,
        "name": "Search",
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
        "columns": 2,
        "cardHeight": 420,
    }


def _charts(space: Space, *, metric: str) -> list[dict[str, Any]]:
    best = best_name(metric)
    axes = _axes(space)
    numeric = [name for path, name in axes.items() if isinstance(space.dimensions[path], Number)]
    charts = []
    if axes:
        selected = {"selectedParams": list(axes.values()), "selectedMetrics": [best], "showAllRuns": True}
        charts.append(_chart("PARALLEL", name="parallel", **selected))
    if len(numeric) > 1:
        charts.append(
            _chart("CONTOUR", name="contour", xaxis=_param(numeric[0]), yaxis=_param(numeric[1]), zaxis=_metric(best))
        )
    charts.append(
        _chart(
            "LINE",
            name="curves",
            metricKey=metric,
            selectedMetricKeys=[metric],
            xAxisKey="step",
            xAxisScaleType="linear",
            scaleType="linear",
            lineSmoothness=0,
        )
    )
    return charts


def _axes(space: Space) -> dict[str, str]:
    """Params to draw by path: those every trial has, ranges first; log ranges by their logarithm, as no axis is one."""
    names = short_names(space)
    always = [path for path, dimension in space.dimensions.items() if not dimension.when]
    always.sort(key=lambda path: not isinstance(space.dimensions[path], Number))
    return {path: f"log10_{names[path]}" if is_log(space, path) else names[path] for path in always[:_MOST_PARAMS]}


def _chart(kind: str, *, name: str, **settings: Any) -> dict[str, Any]:
    return {
        "uuid": f"search-{name}",
        "type": kind,
        "metricSectionId": _SECTION,
        "runsCountToCompare": _CURVES_SHOWN,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }


def _param(name: str) -> dict[str, str]:
    return {"key": name, "type": "PARAM"}


def _metric(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}


def _columns(space: Space, *, metric: str) -> list[str]:
    metrics = [best_name(metric), metric, "train/loss"]
    tags = ["search.state", "search.rung", "search.reason", "search.origin"]
    return [
        *(f"metrics.`{name}`" for name in metrics),
        *(f"params.`{name}`" for name in short_names(space).values()),
        *(f"tags.`{name}`" for name in tags),
        "attributes.`Duration`",
    ]
