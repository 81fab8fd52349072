"""The page of a diagnosis: one HTML file that needs nothing else."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from search.report.figures import drawing_script, figure_html
from search.report.html import Section, html_lines, html_row, html_table, page_html
from trainable.atomic import write_beside
from trainable.diagnosis.advice import Advice
from trainable.diagnosis.diagnose import Diagnosis
from trainable.diagnosis.features import POOLED, Features, stratified
from trainable.statistics.learning_curve import AHEAD, LearningCurve

MAX_POINTS = 1000
PERPLEXITY = 30.0  # van der Maaten and Hinton 2008: usual are 5 to 50
MIN_POINTS = 5  # below them nearness means nothing


def write_page(
    path: Path, *, diagnosis: Diagnosis, features: Features, advice: Advice, title: str, lines: Sequence[str]
) -> None:
    """Write the page: what ``lines`` say, the advice, and its plots."""
    plots = {
        "Probe by stage": probe_figure(diagnosis),
        "Validation images by their pooled features (t-SNE)": embedding_figure(features),
        f"Confusion of the best probe, {diagnosis.best_stage}": confusion_figure(diagnosis),
        "Images of each class": counts_figure(diagnosis),
    }
    if diagnosis.curve is not None:
        plots |= {"Accuracy of a linear probe by its training images": learning_figure(diagnosis.curve)}
    sections = [Section(f"Advice: {advice.size}, {advice.similarity}", _list(advice.reasons))]
    sections += [Section(heading, _plot(figure, title=heading)) for heading, figure in plots.items()]
    sections.append(Section("Which classes more images would serve", _classes_html(diagnosis)))
    text = page_html(title, head=html_lines(lines), sections=sections, script=drawing_script())
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as file:
        file.write(text.encode())


def probe_figure(diagnosis: Diagnosis) -> go.Figure:
    """A bar for each stage's probe, from the input on."""
    values = [scores.value for scores in diagnosis.stages.values()]
    figure = go.Figure(go.Bar(x=list(diagnosis.stages), y=values, text=[f"{value:.3f}" for value in values]))
    return figure.update_layout(yaxis_title="balanced accuracy on validation images", yaxis_range=[0, 1])


def embedding_figure(features: Features) -> go.Figure | None:
    """A point for each of at most 1,000 validation images, coloured by class; None where there are too few."""
    labels = features.labels["val"]
    rows = stratified(labels, limit=MAX_POINTS)
    if len(rows) < MIN_POINTS:
        return None
    points, labels = embedding(features.of(POOLED, split="val")[rows]), labels[rows]
    traces = [
        go.Scatter(x=points[labels == index, 0], y=points[labels == index, 1], mode="markers", name=html.escape(name))
        for index, name in enumerate(features.classes)
    ]
    figure = go.Figure(traces).update_xaxes(showticklabels=False)
    return figure.update_yaxes(showticklabels=False).update_layout(height=600, showlegend=True)


def embedding(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places N×2 by t-SNE of standardised features N×F; the same for the same features. Perplexity is at most (N-1)/3."""
    deviation = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    places: NDArray[np.float32] = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(scaled)
    return places


def confusion_figure(diagnosis: Diagnosis) -> go.Figure:
    """Validation images of the best probe by true class, a row each, and predicted one."""
    probe = diagnosis.stages[diagnosis.best_stage].probe
    names = [html.escape(name) for name in probe.per_class]
    figure = go.Figure(go.Heatmap(z=probe.confusion, x=names, y=names, texttemplate="%{z}", showscale=False))
    figure.update_yaxes(title="true class", autorange="reversed", type="category")
    return figure.update_xaxes(title="predicted class", type="category")


def counts_figure(diagnosis: Diagnosis) -> go.Figure:
    """Images of each class, a bar for each split."""
    traces = [go.Bar(name=split, **_bars(classes)) for split, classes in diagnosis.counts.items()]
    return go.Figure(traces).update_layout(barmode="stack", yaxis_title="images").update_xaxes(type="category")


def learning_figure(curve: LearningCurve) -> go.Figure:
    """A point for each number of images with its standard error, and the law through them, to four times today's images."""
    sizes = [point.num_images for point in curve.points]
    errors = {"type": "data", "array": [point.error for point in curve.points]}
    values = [point.value for point in curve.points]
    traces = [go.Scatter(x=sizes, y=values, error_y=errors, mode="markers", name="measured")]
    if curve.law is not None:
        ahead = np.geomspace(sizes[0], AHEAD[-1] * sizes[-1], 60)
        traces.append(go.Scatter(x=ahead, y=[curve.law.at(size) for size in ahead], mode="lines", name="power law"))
    figure = go.Figure(traces).update_xaxes(title="training images", type="log")
    return figure.update_yaxes(title="balanced accuracy on validation images")


def _classes_html(diagnosis: Diagnosis) -> str:
    """Recall of each class by its images, and what twice as many of it would add, the largest gain first."""
    if diagnosis.curve is None:
        return ""
    rows = [
        html_row(
            [
                diagnosis.classes[each.label],
                str(each.count),
                f"{each.recall:.3f}",
                f"{100 * each.gain:.1f} ± {100 * each.error:.1f}",
            ]
        )
        for each in diagnosis.curve.classes
    ]
    return html_table(rows, heads=("class", "training images", "recall", "points that twice as many would add"))


def _bars(classes: Mapping[str, int]) -> dict[str, list[object]]:
    return {"x": [html.escape(name) for name in classes], "y": list(classes.values())}


def _plot(figure: go.Figure | None, *, title: str) -> str:
    return "<p>too few validation images</p>" if figure is None else figure_html(figure, title=title)


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>"
