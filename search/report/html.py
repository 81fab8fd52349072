"""Tables on a page."""

import html
from collections.abc import Iterable


def html_row(cells: Iterable[str], *, tag: str = "td") -> str:
    """One row, its cells escaped; ``tag`` is `th` for the heads."""
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
