"""``python -m trainable`` as a user types it."""

import contextlib
import io
import json
import subprocess
import sys
from unittest.mock import patch

import pytest
import yaml

from trainable import TrialConfig, UserError
from trainable.__main__ import main


def run(*words, cwd):
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "trainable", *words], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def call(*words, cwd):
    """The same command in this process, which need not load torch anew."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        patch.object(sys, "argv", ["trainable", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def test_a_plan_shows_what_is_frozen_and_every_rate(tmp_path):
    result = call("plan", "resnet18", "--depth", "stage2", "--layer-decay", "0.5", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "frozen" in rows["layer2.1"]
    assert "0.00025" in rows["layer4.0"]
    assert "0.0005" in rows["layer4.1"]
    assert "frozen" not in rows["layer3.0"]


@pytest.mark.slow
def test_a_trial_is_trained_saved_and_resumed_from_its_file(tmp_path, draw_folder):
    trial = {
        "data": {"path": str(draw_folder({"a": 20, "b": 20})), "image_size": 32, "cache": str(tmp_path / "cache")},
        "model": {"name": "test_resnet", "weights": "random"},
        "train": {"epochs": 2},
    }
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(trial))
    first = run("trial.yaml", "--json", "--save", "checkpoints", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    epochs = [json.loads(line) for line in first.stdout.splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    again = call("fit", "trial.yaml", "--json", "--resume", "checkpoints/epoch_00001", cwd=tmp_path)
    (second,) = [json.loads(line) for line in again.stdout.splitlines()]
    same = [key for key in second if not key.startswith("usage/")]
    assert {key: second[key] for key in same} == {key: epochs[1][key] for key in same}
    told = call("fit", "trial.yaml", "--resume", "checkpoints/epoch_00001", cwd=tmp_path).stdout
    assert told.startswith("epoch 2 of 2, 0 s left  train/loss")
    written = call("weights", "trial.yaml", "checkpoints/epoch_00002", "--out", "network.safetensors", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "network.safetensors").is_file()
    missing = call("weights", "trial.yaml", "nowhere", cwd=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: CHECKPOINT: nowhere is no whole checkpoint")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("optimizer: {lrr: 1}", "trial.yaml: optimizer.lrr: unknown key; did you mean 'lr'?"),
        ("optimizer: {lr: fast}", "trial.yaml: optimizer.lr: got 'fast', must be a number above 0, at most 10"),
        ("seed: 1\nseed: 2", "trial.yaml:2: 'seed' is given twice"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, text, said):
    (tmp_path / "trial.yaml").write_text(text)
    result = call("trial.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.strip() == f"error: {said}"


def test_a_configuration_written_in_python_is_refused_in_the_same_words():
    with pytest.raises(UserError, match=r"^seed: got -1, must be a whole number at least 0 \(and 1 more\)$") as refused:
        TrialConfig.of({"optimizer": {"lrr": 1}, "seed": -1})
    assert "optimizer.lrr: unknown key; did you mean 'lr'?" in refused.value.problems
    assert TrialConfig.of({"seed": 4}) == TrialConfig(seed=4)


@pytest.mark.slow
def test_a_range_test_prints_its_suggestion_and_writes_its_plot_where_it_is_told(tmp_path, draw_folder):
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(small(tmp_path, draw_folder, train={"batch_size": 8})))
    result = call("lr-range", "trial.yaml", "--out", "range.html", "--updates", "12", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("optimizer.lr: ")
    assert (tmp_path / "range.html").read_text().rstrip().endswith("</html>")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "values"),
    [
        (
            "pretrain",
            {"epochs": 1, "batch_size": 8, "projection_width": 8, "projection_hidden": 16, "method": "simclr"},
        ),
        ("meta", {"updates": 2, "report_every": 1, "ways": 2, "shots": 2, "queries": 2, "tasks": 1}),
    ],
)
def test_what_a_backbone_is_trained_to_before_a_trial_is_told_and_saved(command, values, tmp_path, draw_folder):
    if command == "pretrain":
        pytest.importorskip("lightly", reason="needs lightly: pip install '.[ssl]'")
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(small(tmp_path, draw_folder, **values)))
    result = call(command, "settings.yaml", "--save", "run", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [next(iter(row)) for row in rows] == (["epoch"] if command == "pretrain" else ["update", "update"])
    assert (tmp_path / "run" / "backbone.safetensors").is_file()


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("pretrain", "method: simclrr", "method: got 'simclrr', must be one of simclr, moco; did you mean 'simclr'?"),
        ("meta", "shot: 1", "shot: unknown key; did you mean 'shots'?"),
        ("lr-range", "optimizer: {lrr: 1}", "optimizer.lrr: unknown key; did you mean 'lr'?"),
    ],
)
def test_a_mistake_in_the_settings_of_another_command_is_one_line_too(command, text, said, tmp_path):
    (tmp_path / "settings.yaml").write_text(text)
    words = [] if command == "lr-range" else ["--save", "run"]
    result = call(command, "settings.yaml", *words, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.strip() == f"error: settings.yaml: {said}"


def small(tmp_path, draw_folder, **values):
    data = {"path": str(draw_folder({"a": 16, "b": 16})), "image_size": 32, "cache": str(tmp_path / "cache")}
    return {"data": data, "model": {"name": "test_resnet", "weights": "random"}} | values
