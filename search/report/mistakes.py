"""What the final candidate gets wrong on validation images, as a page shows it."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from search.ledger.files import MISTAKES
from search.report.classes import folded_table, range_html
from search.report.figures import MUTED, PALETTE
from search.report.html import Section, html_cells

ADDRESS = "data:image/jpeg;base64,"  # how pictures of our own begin
PIXELS_A_CLASS = 26  # of the plot of a confusion
SPARSE = 10  # classes beyond which a confusion has no zeros written in it
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
RELIABILITY = "How often it is right by how sure it is, on validation images before its finish"
ALIKE = (
    "By small grey pictures alone; a scene that very many training images show is not found. Frames of one film, or photos of "
    "one object, on both sides make a score too good; data.group_column keeps them in one split."
)


def read_mistakes(folder: Path, *, trial: int | None, soup: Sequence[int] | None) -> dict[str, Any] | None:
    """What was written of this final candidate; None where there is nothing, or it is of another one."""
    path = folder / MISTAKES
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    return document if (document["trial"], document["soup"]) == (trial, soup) else None


def mistakes_sections(mistakes: Mapping[str, Any] | None) -> list[Section]:
    """Classes by recall, and galleries of images; nothing where nothing was written."""
    if mistakes is None:
        return []
    rows = [
        html_cells(
            [
                html.escape(row["class"]),
                str(row["count"]),
                range_html(row["recall"], low=row["recall_low"], high=row["recall_high"]),
                f"{row['precision']:.3f}",
            ]
        )
        for row in mistakes["per_class"]
    ]
    table = folded_table(rows, heads=("class", "images", "recall, 95 %", "precision"))
    classes = Section(f"Classes on the {mistakes['num_images']} validation images", table)
    return [classes, *(_gallery(mistakes, kind=kind) for kind in GALLERIES), _pairs(mistakes)]


def confusion_figure(confusion: Mapping[str, Any]) -> go.Figure:
    """A confusion as colours: the share of each true class's images, with their number."""
    counts, classes = confusion["counts"], [_short(name) for name in confusion["classes"]]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    places = list(range(len(classes)))
    heat = go.Heatmap(
        z=shares,
        x=places,
        y=places,
        text=[[_written(count, of=len(classes)) for count in row] for row in counts],
        texttemplate="%{text}",
        customdata=[
            [f"{true} taken for {taken}: {count} images" for taken, count in zip(classes, row, strict=True)]
            for true, row in zip(classes, counts, strict=True)
        ],
        hovertemplate="%{customdata}: %{z:.0%}<extra></extra>",
        zmin=0,
        zmax=1,
    )
    ticks = {"tickvals": places, "ticktext": classes}
    side = 260 + PIXELS_A_CLASS * len(classes)
    figure = go.Figure(heat).update_layout(width=side, height=side)
    figure.update_xaxes(title_text="taken for", tickangle=-60, **ticks)
    return figure.update_yaxes(title_text="true class", autorange="reversed", **ticks)


def confusion_title(confusion: Mapping[str, Any]) -> str:
    """What is shown of the classes."""
    shown, every = len(confusion["classes"]), confusion["num_classes"]
    of = "" if shown == every else f", the {shown} of {every} classes with most mistakes"
    return f"Confusion on validation images{of}"


def _gallery(mistakes: Mapping[str, Any], *, kind: str) -> Section:
    images, (title, words) = mistakes[kind], GALLERIES[kind]
    number = mistakes.get(f"num_{kind}", len(images))
    of = f", {len(images)} of {number}" if number > len(images) else ""
    figures = "".join(_image_figure(image) for image in images)
    beneath = f"<p>{html.escape(words)}</p>" if words else ""
    return Section(f"{title}{of}", f'{beneath}<div class="images">{figures}</div>' if images else "")


def _pairs(mistakes: Mapping[str, Any]) -> Section:
    """Images held out beside the training images that they look like."""
    pairs, figures = mistakes.get("alike", []), ""
    for pair in pairs:
        told = (f"in {pair['split']}, alike by {pair['similarity']:.3f}", "in train")
        figures += "".join(
            _figure(image, told=[f"{image['label']}, {where}"])
            for image, where in zip(pair["images"], told, strict=True)
        )
    number = mistakes.get("num_alike", 0)
    of = f", {len(pairs)} of {number} pairs" if number > len(pairs) else ""
    body = f'<p>{html.escape(ALIKE)}</p><div class="images">{figures}</div>' if pairs else ""
    return Section(f"Held-out images that look like training images{of}", body)


def reliability_figure(bins: Sequence[Mapping[str, Any]]) -> go.Figure:
    """The share of right answers by how sure they are; a calibrated network's are on the line. Marks grow with the images."""
    largest = max(each["count"] for each in bins)
    marks = {
        "size": [8 + 22 * (each["count"] / largest) ** 0.5 for each in bins],
        "color": PALETTE[0],
    }
    figure = go.Figure(
        go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "dash": "dot"}, hoverinfo="skip")
    )
    figure.add_trace(
        go.Scatter(
            x=[each["confidence"] for each in bins],
            y=[each["accuracy"] for each in bins],
            customdata=[each["count"] for each in bins],
            mode="lines+markers",
            line={"color": PALETTE[0], "width": 1},
            marker=marks,
            hovertemplate="sure by %{x:.2f}, right in %{y:.2f} of %{customdata} images<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="how sure it is: the largest probability", range=[0, 1.03])
    figure.update_yaxes(title_text="share of right answers", range=[0, 1.05])
    return figure.update_layout(height=380, showlegend=False)


def _image_figure(image: Mapping[str, Any]) -> str:
    told = [
        f"is {image['label']} ({image['of_label']:.2f})",
        f"taken for {image['predicted']} ({image['probability']:.2f})",
    ]
    return _figure(image, told=told)


def _figure(image: Mapping[str, Any], *, told: Sequence[str]) -> str:
    address, name = image["picture"], html.escape(image["name"], quote=True)
    source = html.escape(address, quote=True) if address.startswith(ADDRESS) else ""
    lines = "<br>".join(html.escape(line) for line in told)
    return f'<figure><img src="{source}" alt="{name}" title="{name}"><figcaption>{lines}</figcaption></figure>'


def _written(count: int, *, of: int) -> str:
    """A count in a cell; among many classes no zeros, so that what is confused stands out."""
    return "" if not count and of > SPARSE else str(count)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
