"""What every page is made of."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --shade: #f3f5f7;
  --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161b; --ink: #e6e9ed; --soft: #9ba5b0; --line: #333b45; --shade: #1c2229; --accent: #56b4e9; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; background: var(--paper); color: var(--ink); }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.page { display: grid; grid-template-columns: 12.5rem minmax(0, 1fr); max-width: 1320px; margin: 0 auto; }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto; padding: 1.5rem .5rem 1.5rem 1.25rem;
  font-size: .85rem; } nav a { display: block; padding: .16rem 0; color: var(--soft); }
main { padding: 1.25rem 1.75rem 4rem; min-width: 0; overflow-wrap: anywhere; }
h1 { font-size: 1rem; font-weight: 600; color: var(--soft); margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; } p { margin: .4rem 0; max-width: 75ch; }
.verdict { font-size: 1.35rem; font-weight: 600; line-height: 1.25; max-width: none; margin: .2rem 0 .5rem; }
.verdict::first-letter { text-transform: uppercase; } .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .6rem; margin: .9rem 0; }
.tile { background: var(--shade); border-radius: .5rem; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--soft); font-size: .8rem; line-height: 1.35; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1.5rem; }
.pair h3 { margin: .6rem 0 0; font-size: .9rem; font-weight: 600; }
.scroll { overflow-x: auto; max-width: 100%; } .plot { width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
td, th { padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; } tr + tr td { border-top: 1px solid var(--line); }
td code { white-space: nowrap; }
code { background: var(--shade); padding: .1rem .3rem; border-radius: .25rem; font-size: .9em; }
li code { overflow-wrap: anywhere; } summary { cursor: pointer; color: var(--accent); margin: .5rem 0; }
.range { position: relative; display: inline-block; width: 8rem; height: .7rem; background: var(--shade);
  vertical-align: middle; border-radius: .2rem; }
.range i { position: absolute; top: 0; bottom: 0; background: var(--accent); opacity: .4; border-radius: .2rem; }
.range b { position: absolute; top: -.1rem; bottom: -.1rem; width: 2px; background: var(--accent); }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; }
figure { margin: 0; font-size: .8rem; line-height: 1.35; } figure img { max-width: 100%; border-radius: .25rem; }
@media screen and (max-width: 900px) {
  .page { display: block; } main { padding: .25rem 1rem 3rem; }
  nav { display: flex; gap: 1rem; overflow-x: auto; white-space: nowrap; padding: .6rem 1rem; max-height: none;
    background: var(--paper); border-bottom: 1px solid var(--line); z-index: 1; }
  html { scroll-padding-top: 3rem; } .verdict { font-size: 1.25rem; } .tiles { grid-template-columns: 1fr 1fr; }
  .tile b { font-size: 1.2rem; }
  td:last-child:nth-child(4) { min-width: 14rem; } td:last-child:nth-child(6) { min-width: 30rem; } }
@media print {
  :root { color-scheme: light; --paper: #ffffff; --ink: #000000; --soft: #444444; --line: #cccccc; --shade: #f3f5f7;
    --accent: #0072b2; }
  body { font-size: 10pt; } .page { display: block; max-width: none; } nav { display: none; } main { padding: 0; }
  .scroll { overflow: visible; } .pair { grid-template-columns: 1fr; } .plot { zoom: calc(1 / var(--wide, 1)); }
  h2, h3 { break-after: avoid; }
  .plot, .tile, figure, tr { break-inside: avoid; } .tile { border: 1px solid var(--line); } }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page under its ``title``, which is escaped; ``body`` is HTML, and one without any is left out."""

    title: str
    body: str

    @property
    def anchor(self) -> str:
        """By what it is found within the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Tile:
    """A figure: its ``value`` in large letters, its ``name`` above, a ``note`` beneath."""

    name: str
    value: str
    note: str = ""


def page_html(title: str, *, head: str = "", sections: Iterable[Section], script: str = "") -> str:
    """Make a whole page: under the title, which is escaped, ``head`` in HTML, then sections, with a table of contents."""
    shown = [section for section in sections if section.body]
    name = html.escape(title)
    links = "".join(f'<a href="#{section.anchor}">{html.escape(section.title)}</a>' for section in shown)
    body = "\n".join(
        f'<section id="{section.anchor}"><h2>{html.escape(section.title)}</h2>{section.body}</section>'
        for section in shown
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{name}</title><style>{_STYLE}</style></head>"
        f'<body><div class="page"><nav aria-label="contents">{links}</nav><main><h1>{name}</h1>{head}\n{body}</main></div>'
        f"{script}</body></html>\n"
    )


def html_verdict(sentence: str, *, others: Iterable[str] = ()) -> str:
    """What it all comes to, in large letters, and other sentences beneath; escaped."""
    return f'<p class="verdict">{html.escape(sentence)}</p>{html_lines(others)}'


def html_tiles(tiles: Iterable[Tile]) -> str:
    """Figures side by side; escaped."""
    drawn = "".join(
        f'<div class="tile"><span>{html.escape(tile.name)}</span><b>{html.escape(tile.value)}</b>'
        f"<span>{html.escape(tile.note)}</span></div>"
        for tile in tiles
    )
    return f'<div class="tiles">{drawn}</div>'


def html_row(cells: Iterable[str], *, tag: str = "td") -> str:
    """One row, its cells escaped; ``tag`` is `th` for the heads."""
    return html_cells((html.escape(cell) for cell in cells), tag=tag)


def html_cells(cells: Iterable[str], *, tag: str = "td") -> str:
    """One row of cells that are HTML."""
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def html_table(rows: Sequence[str], *, heads: Sequence[str] = ()) -> str:
    """A table of rows in HTML under heads, which are escaped; one too wide for the screen is scrolled within itself."""
    if not rows:
        return ""
    head = f"<thead>{html_row(heads, tag='th')}</thead>" if heads else ""
    return f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def html_lines(lines: Iterable[str]) -> str:
    """A paragraph for each line, escaped."""
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
