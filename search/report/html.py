"""What every page is made of."""

import html
from collections.abc import Iterable

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
.verdict { font-size: 1.5rem; line-height: 1.3; } code { background: #f6f6f6; padding: .1rem .3rem; }
.images { display: flex; flex-wrap: wrap; gap: .8rem; } figure { margin: 0; width: 11rem; font-size: .85rem; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; }
"""


def page_html(title: str, *, sections: Iterable[str]) -> str:
    """Make a whole page of sections in HTML under a title, which is escaped."""
    name, body = html.escape(title), "\n".join(sections)
    head = f'<head><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style></head>'
    return f'<!doctype html>\n<html lang="en">{head}<body><h1>{name}</h1>\n{body}</body></html>\n'


def html_row(cells: Iterable[str], *, tag: str = "td") -> str:
    """One row, its cells escaped; ``tag`` is `th` for the heads."""
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
