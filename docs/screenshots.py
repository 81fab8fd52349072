"""Make the pictures in README.md from a finished search: `python docs/screenshots.py searches/quickstart`.

Needs a Chromium on the PATH. Writes `report-light.png` and `report-dark.png`, the first screen of the search's page, and
`verdict.svg`, what the terminal says of it, into docs/images/.
"""

import re
import shutil
import subprocess
import sys
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from rich.console import Console

from search.report.page import write_page
from search.report.report import report_data, verdict_texts

IMAGES = Path(__file__).resolve().parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = (1280, 600)  # pixels
COLUMNS = 100  # of the terminal
COLOURS = 128  # of a picture: enough for text and plots, in a third of the bytes
SCHEMES = {"light": 1, "dark": 0}  # Chromium's numbers


def browser() -> str | None:
    """Where a Chromium is; None where none is on the PATH."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def browse(page: Path, *options: str, seconds: float = 120.0) -> str:
    """What a Chromium without a screen writes of a page with these options, once its script is done."""
    command = browser()
    assert command is not None, "a Chromium is on the PATH"
    with TemporaryDirectory() as profile:
        quiet = ["background-networking", "component-update", "gpu", "quic", "sync"]
        flags = ["--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars", "--virtual-time-budget=20000"]
        flags += [f"--disable-{name}" for name in quiet] + [f"--user-data-dir={profile}"]
        call = [command, *flags, *options, page.resolve().as_uri()]
        return subprocess.run(call, capture_output=True, text=True, timeout=seconds, check=True).stdout


def picture(page: Path, *, scheme: str) -> bytes:
    """The first screen of a page as a PNG of few colours, light or dark."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "screen.png"
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        browse(page, size, f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", f"--screenshot={path}")
        screen = Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    content = BytesIO()
    screen.save(content, "PNG", optimize=True)
    return content.getvalue()


def terminal(folder: Path) -> str:
    """What the terminal says of a search's verdict, as an SVG that loads nothing."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(f"$ python -m search report {folder.name}", highlight=False, style="bold")
    for line in verdict_texts(report_data(folder)):
        console.print(line, highlight=False, markup=False)
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=folder.name), flags=re.DOTALL)


def main(folder: Path) -> None:
    """Write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    page = write_page(folder)
    for scheme in SCHEMES:
        (IMAGES / f"report-{scheme}.png").write_bytes(picture(page, scheme=scheme))
    (IMAGES / "verdict.svg").write_text(terminal(folder))


if __name__ == "__main__":
    if len(sys.argv) != 2 or browser() is None:
        sys.exit("one finished search, and a Chromium on the PATH: python docs/screenshots.py searches/quickstart")
    main(Path(sys.argv[1]))
