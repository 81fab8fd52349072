"""A plan that waits beside where a search will be, until the search begins and notes it."""

import json
import math
import socket
from contextlib import suppress
from pathlib import Path

from search.ledger.files import PLAN
from search.ledger.notes import Planned, made
from search.ledger.stored import SPEC_FILE
from search.space.spec import SearchSpec
from trainable.atomic import make_private_folder, write_beside
from trainable.json_text import to_json

# Of a search's sections what has no say in how long it takes.
UNTIMED = ("tracking", "promote", "refresh")
UNTIMED_OF_SEARCH = ("folder", "storage")


def keep_plan(planned: Planned, *, spec: SearchSpec, folder: Path) -> None:
    """Keep a plan for the search that ``folder`` is to hold, unless that has begun, or nothing can be written there."""
    if (folder / SPEC_FILE).exists():
        return
    with suppress(OSError):
        make_private_folder(folder)
        with write_beside(folder / PLAN) as file:
            file.write(to_json({"of": _what(spec), "host": socket.gethostname(), "planned": vars(planned)}).encode())


def kept_plan(spec: SearchSpec, *, folder: Path) -> Planned | None:
    """The plan that was kept for this very search on this machine; None without one, or where the file is no plan of ours."""
    try:
        kept = json.loads((folder / PLAN).read_text())
        planned = made(Planned, kept["planned"])
        is_of_this = (kept["of"], kept["host"]) == (_what(spec), socket.gethostname())
        is_sound = planned.epochs >= 1 and 0 < planned.least <= planned.most < math.inf
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return planned if is_of_this and is_sound else None


def _what(spec: SearchSpec) -> str:
    """All of a search that may decide how long it takes."""
    sections = spec.model_dump(mode="json", exclude=set(UNTIMED))
    sections["search"] = {name: value for name, value in sections["search"].items() if name not in UNTIMED_OF_SEARCH}
    return to_json(sections, sort_keys=True)
