"""Plots on a page: drawn light or dark as the reader's screen is, by a script that the page carries."""

import base64
import gzip
import html
import json
from functools import cache
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from trainable.json_text import to_json

# Okabe and Ito 2008: told apart by every kind of colour vision, and visible on a light and on a dark page.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
MUTED = "#8a929c"
PAPER = 660  # pixels, of a printed plot that names no width: what A4 has between its margins
HEIGHT = 320  # pixels, of a plot that names none
COMPRESSION = 4  # of the library: within a tenth of the smallest, in a third of the time

_DRAW = """
window.PlotlyConfig = {MathJaxConfig: 'local'};
(() => {
  const themes = THEMES, dark = matchMedia('(prefers-color-scheme: dark)');
  const plots = [...document.querySelectorAll('.plot')];
  const draw = (isDark, width) => plots.forEach(plot => {
    const figure = JSON.parse(plot.nextElementSibling.textContent);
    const layout = {width, ...figure.layout, template: themes[isDark ? 'dark' : 'light']};
    Plotly.react(plot, figure.data, layout, {responsive: true, displayModeBar: false});
  });
  const load = async () => {
    const packed = Uint8Array.from(atob(document.getElementById('library').textContent), c => c.charCodeAt(0));
    const script = document.createElement('script');
    script.textContent = await new Response(
      new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'))).text();
    document.head.append(script);
    draw(dark.matches);
    dark.addEventListener('change', () => draw(dark.matches));
    addEventListener('beforeprint', () => draw(false, PAPER));
    addEventListener('afterprint', () => draw(dark.matches));
    document.body.dataset.drawn = 'true';
  };
  load().catch(error => plots.forEach(plot => { plot.textContent = `This browser does not draw the plot: ${error}`; }));
})();
"""


def figure_html(figure: go.Figure, *, title: str) -> str:
    """A place for a plot with its data; a plot that names its width is scrolled within it where the screen is narrower."""
    document = json.loads(figure.to_json())
    layout = document["layout"]
    layout.pop("template", None)  # the page's own are by the reader's screen
    width = (
        f"; width: {layout['width']}px; --wide: {max(1.0, layout['width'] / PAPER):.2f}" if "width" in layout else ""
    )
    text = to_json(document).replace("<", "\\u003c")
    return (
        f'<div class="scroll"><div class="plot" role="img" aria-label="{html.escape(title, quote=True)}" '
        f'style="height: {layout.get("height", HEIGHT)}px{width}"></div>'
        f'<script type="application/json">{text}</script></div>'
    )


def drawing_script() -> str:
    """What draws all plots of a page, once, at its end."""
    script = _DRAW.replace("THEMES", to_json(THEMES)).replace("PAPER", str(PAPER))
    return f'<script type="application/octet-stream" id="library">{_library()}</script><script>{script}</script>'


@cache
def _library() -> str:
    """plotly.js, compressed, so that a page is of two megabytes and not of five."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), COMPRESSION, mtime=0)).decode()


def _theme(*, ink: str, soft: str, grid: str, paper: str, scale: list[str]) -> dict[str, Any]:
    axis = {"gridcolor": grid, "linecolor": grid, "zeroline": False, "automargin": True, "title": {"standoff": 8}}
    steps = [[place / (len(scale) - 1), colour] for place, colour in enumerate(scale)]
    layout = {
        "font": {"color": ink, "family": "system-ui, sans-serif", "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": PALETTE,
        "xaxis": axis,
        "yaxis": axis,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": soft}},
        "margin": {"l": 10, "r": 10, "t": 30, "b": 10},
        "hoverlabel": {"bgcolor": paper, "bordercolor": grid, "font": {"color": ink}},
        "dragmode": False,
    }
    return {"layout": layout, "data": {"heatmap": [{"colorscale": steps, "showscale": False}]}}


THEMES = {
    "light": _theme(
        ink="#1b1f24",
        soft="#59636e",
        grid="#e3e7eb",
        paper="#ffffff",
        scale=["#f7fafc", "#9ecae1", "#0072b2", "#084072"],
    ),
    "dark": _theme(
        ink="#e6e9ed",
        soft="#9ba5b0",
        grid="#2a323b",
        paper="#1c2229",
        scale=["#171d24", "#134a70", "#2f8fcb", "#b5def7"],
    ),
}
