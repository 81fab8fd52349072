"""What `refresh` says where it ends before its time: one line of JSON and, on the screen, one line in words."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SPACE = """
search: {{name: cells, trials: 2, folder: {folder}/searches}}
scheduler: {{max_epochs: 3}}
tracking: {{uri: "{uri}"}}
refresh: {{settle_seconds: 0}}
base:
  data: {{path: {folder}/images}}
  model: {{name: test_resnet, weights: random}}
vary: {{optimizer.lr: {{log: [1e-4, 1e-2]}}}}
"""


@pytest.fixture
def space(tmp_path):
    def write(uri=f"sqlite:///{tmp_path}/mlflow.db"):
        path = tmp_path / "cells.yaml"
        path.write_text(SPACE.format(folder=tmp_path, uri=uri))
        return path

    return write


def begun(*arguments):
    command = [sys.executable, "-m", "search", "refresh", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    """Exit code, the JSON of the one line on stdout, the one line on stderr."""
    said, told = process.communicate(timeout=120)
    (answer,) = map(json.loads, said.splitlines())
    (words,) = told.splitlines()
    return process.returncode, answer, words


def test_bad_input_is_a_decision_too(space, tmp_path):
    path = space()
    code, answer, words = ended(begun(path))
    reason = f"data.path: '{tmp_path}/images' does not exist"
    assert code == 2
    assert answer == {"space": str(path), "decision": "bad input", "reasons": [answer["reasons"][0]]}
    assert answer["reasons"][0].startswith(reason)
    assert words == f"error: {answer['reasons'][0]}"
    code, answer, _ = ended(begun(tmp_path / "none.yaml"))
    assert (code, answer["decision"]) == (2, "bad input")


@pytest.mark.slow
def test_a_failure_is_a_decision_too(space, draw_folder):
    draw_folder({"a": 3, "b": 3})
    code, answer, words = ended(begun(space("http://127.0.0.1:9")))
    assert (code, answer["decision"]) == (1, "failed")
    assert answer["reasons"][0].startswith("tracking.uri: ")
    assert words == f"error: {answer['reasons'][0]}; to be tried again"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_looks_at_things_is_an_interruption(space, number):
    path = space()
    path.unlink()
    os.mkfifo(path)  # which is read until the writer closes it
    process = begun(path)
    with path.open("w"):
        time.sleep(1.0)  # it reads by then
        process.send_signal(number)
        code, answer, words = ended(process)
    assert code == 130
    assert answer == {"space": str(path), "decision": "interrupted", "reasons": [words]}
    assert words == "interrupted; the same command goes on"
