"""Trainings that a table is made of, kept as lines of a file, so that the same command goes on where it was cut off."""

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Run = dict[str, Any]  # what was `asked`, and what came of it


def run_missing(
    wanted: Sequence[dict[str, Any]],
    *,
    train: Callable[[dict[str, Any]], Run],
    file: Path,
    processes: int,
    line: Callable[[Run], str],
    trainings_a_process: int | None = None,
) -> list[Run]:
    """A run for each that is wanted; what ``file`` does not hold yet is trained and appended, told by its ``line``."""
    lines = file.read_text().splitlines() if file.is_file() else []
    known = {json.dumps(run["asked"]): run for run in map(json.loads, lines)}
    missing = [asked for asked in wanted if json.dumps(asked) not in known]
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=trainings_a_process)
    with pool, file.open("a") as out:
        for run in pool.map(train, missing):
            known[json.dumps(run["asked"])] = run
            out.write(json.dumps(run) + "\n")
            out.flush()
            print(line(run), file=sys.stderr)
    return [known[json.dumps(asked)] for asked in wanted]
