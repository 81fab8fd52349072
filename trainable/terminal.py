"""Shows text in a terminal as it is: none of it is markup, a control code, or a password."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress
from rich.segment import Segment
from rich.text import Text

from trainable.masking import masked

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# All of C0 but tab and line feed, delete, C1, and what turns the direction of a line: they rename windows, clear what was
# printed, and make one name look like another.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Terminal(Console):
    """Rich's console for text that others may have written: names of classes, of files, of keys."""

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does, addresses without their secrets."""
        super().print(*(masked(each) if isinstance(each, str) else each for each in objects), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Style a text as Rich does; one cell of a table would end at a carriage return."""
        return super().render_str(plain(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as Rich does, with a replacement character for each control code that is not Rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))


@contextmanager
def progress(what: str, *, screen: Terminal, fewest: int = 0) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left, on a terminal, of more than ``fewest`` things, gone at the end; gives what is told how many
    of how many are done.
    """
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(what, visible=False)

        def hear(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=total > fewest)

        yield hear


def plain(text: str) -> str:
    """The text with a replacement character for each control code but tabs and line feeds."""
    return _CONTROL.sub(REPLACEMENT, text)


def unstyled(text: str) -> str:
    """The text without the codes that colour it, otherwise as :func:`plain` has it."""
    return plain(Text.from_ansi(text).plain)
