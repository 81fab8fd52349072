"""What the final candidate gets wrong on validation images, as a page shows it."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from search.ledger.files import MISTAKES
from search.report.html import html_row

ADDRESS = "data:image/jpeg;base64,"  # how pictures of our own begin
PIXELS_A_CLASS = 26  # of the plot of a confusion
PLAIN_ROWS = 30  # classes of a table that is open from the first
LONGEST_NAME = 24  # of a class beside a plot
# The images of each kind: their title, and what is said beneath it.
GALLERIES = {
    "confident": ("The most confident mistakes", ""),
    "unsure": ("The least sure images", "Their two likeliest classes are nearest to each other."),
    "suspected": (
        "Labels that may be wrong",
        "By confident learning (Northcutt et al. 2021) over the final candidate's answers to validation images. These had a "
        "say in its choice, which makes its answers too sure: each is a place to look, not a finding.",
    ),
}


def read_mistakes(folder: Path, *, trial: int | None, soup: Sequence[int] | None) -> dict[str, Any] | None:
    """What was written of this final candidate; None where there is nothing, or it is of another one."""
    path = folder / MISTAKES
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document if (document["trial"], document["soup"]) == (trial, soup) else None


def mistakes_html(mistakes: Mapping[str, Any] | None) -> str:
    """Classes by recall, and galleries of images; nothing where nothing was written."""
    if mistakes is None:
        return ""
    heads = html_row(["class", "recall", "95 %", "precision", "images"], tag="th")
    rows = [
        html_row(
            [
                row["class"],
                f"{row['recall']:.3f}",
                f"{row['recall_low']:.2f} to {row['recall_high']:.2f}",
                f"{row['precision']:.3f}",
                str(row["count"]),
            ]
        )
        for row in mistakes["per_class"]
    ]
    table = folded_table(heads, rows=rows)
    galleries = [_gallery(mistakes, kind=kind) for kind in GALLERIES]
    return f"<h2>Classes on the {mistakes['num_images']} validation images</h2>{table}{''.join(galleries)}"


def folded_table(heads: str, *, rows: Sequence[str]) -> str:
    """A table of classes in HTML, the worst recall first; of many it is opened by a click."""
    table = f"<table>{heads}{''.join(rows)}</table>"
    if len(rows) <= PLAIN_ROWS:
        return table
    return f"<details><summary>all {len(rows)} classes, the worst recall first</summary>{table}</details>"


def confusion_figure(confusion: Mapping[str, Any]) -> go.Figure:
    """A confusion as colours: the share of each true class's images, with their number."""
    counts, classes = confusion["counts"], [_short(name) for name in confusion["classes"]]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    places = list(range(len(classes)))
    heat = go.Heatmap(
        z=shares,
        x=places,
        y=places,
        text=counts,
        texttemplate="%{text}",
        customdata=[[f"{true} taken for {taken}" for taken in classes] for true in classes],
        hovertemplate="%{customdata}: %{text} images, %{z:.0%}<extra></extra>",
        colorscale="Blues",
        zmin=0,
        zmax=1,
    )
    ticks = {"tickvals": places, "ticktext": classes}
    side = 260 + PIXELS_A_CLASS * len(classes)
    figure = go.Figure(heat).update_layout(width=side + 80, height=side)
    figure.update_xaxes(title_text="taken for", tickangle=-60, **ticks)
    return figure.update_yaxes(title_text="true class", autorange="reversed", **ticks)


def confusion_title(confusion: Mapping[str, Any]) -> str:
    """What is shown of the classes."""
    shown, every = len(confusion["classes"]), confusion["num_classes"]
    of = "" if shown == every else f", the {shown} of {every} classes with most mistakes"
    return f"Confusion on validation images{of}"


def _gallery(mistakes: Mapping[str, Any], *, kind: str) -> str:
    images, (title, words) = mistakes[kind], GALLERIES[kind]
    if not images:
        return ""
    number = mistakes.get(f"num_{kind}", len(images))
    of = f", {len(images)} of {number}" if number > len(images) else ""
    figures = "".join(_figure(image) for image in images)
    return f'<h2>{title}{of}</h2><p>{html.escape(words)}</p><div class="images">{figures}</div>'


def _figure(image: Mapping[str, Any]) -> str:
    address, name = image["picture"], html.escape(image["name"], quote=True)
    source = html.escape(address, quote=True) if address.startswith(ADDRESS) else ""
    told = [
        f"is {image['label']} ({image['of_label']:.2f})",
        f"taken for {image['predicted']} ({image['probability']:.2f})",
    ]
    lines = "<br>".join(html.escape(line) for line in told)
    return f'<figure><img src="{source}" alt="{name}" title="{name}"><figcaption>{lines}</figcaption></figure>'


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
