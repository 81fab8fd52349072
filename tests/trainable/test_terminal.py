import io

import pytest
from rich.table import Table
from rich.text import Text

from trainable.terminal import REPLACEMENT, Terminal, plain, progress

ODD = "x\x1b]0;pwned\x07\x1b[31m\x9b2J\r\u202eend"
SHOWN = f"x{REPLACEMENT}]0;pwned{REPLACEMENT}{REPLACEMENT}[31m{REPLACEMENT}2J{REPLACEMENT}{REPLACEMENT}end"


def printed(*objects, **options):
    file = io.StringIO()
    Terminal(file=file, width=200, **options).print(*objects, highlight=False)
    return file.getvalue()


def table(cell):
    rows = Table("head", box=None, pad_edge=False)
    rows.add_row(cell)
    return rows


@pytest.mark.parametrize("wrap", [str, Text, table])
def test_no_control_code_of_a_text_reaches_the_terminal(wrap):
    words = printed(wrap(ODD))
    assert "x" in words
    assert "end" in words
    assert not set(words) - {"\n"} & {chr(code) for code in (*range(32), *range(127, 160), 0x202E)}


def test_what_is_replaced_is_seen_and_lines_and_tabs_stay():
    assert plain(ODD) == SHOWN
    assert plain("a\tb\nc é 你好 👩‍🔬") == "a\tb\nc é 你好 👩‍🔬"


def test_the_colours_of_a_terminal_stay():
    assert "\x1b[1m" in printed(Text("bold", style="bold"), force_terminal=True, color_system="standard")


@pytest.mark.parametrize("text", ["/data/[/old]/w.safetensors", "[bold]a[/bold]", "a:smile:", "\\[x]"])
@pytest.mark.parametrize("wrap", [str, table])
def test_no_text_is_markup(wrap, text):
    assert text in printed(wrap(text))


@pytest.mark.parametrize(("is_terminal", "fewest", "shown"), [(True, 0, True), (True, 10, False), (False, 0, False)])
def test_a_bar_is_shown_on_a_terminal_of_more_than_a_few(is_terminal, fewest, shown):
    file = io.StringIO()
    with progress("trying", screen=Terminal(file=file, force_terminal=is_terminal), fewest=fewest) as tell:
        tell(5, 10)
    assert ("trying" in file.getvalue()) == shown
    assert ("50%" in file.getvalue()) == shown


def test_an_address_is_printed_without_its_password():
    assert printed("error: postgresql://user:hun/ter2@host/db fails") == "error: postgresql://host/db fails\n"
