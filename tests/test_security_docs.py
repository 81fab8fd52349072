"""docs/security.md names the tests that hold its promises."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_promise_names_tests_that_there_are():
    text = (ROOT / "docs/security.md").read_text()
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = re.findall(r"`(test_\w+)`", text)
    assert sorted(set(named) - there) == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 15
    assert [row for row in rows if "`test_" not in row] == []
