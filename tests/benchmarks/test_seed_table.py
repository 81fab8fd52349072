"""The table of arms changes one thing at a time, holds them all, and goes on where it was cut off."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "seed_table.py"
# Arm: its neighbour, the settings in which the two differ.
STEPS = {
    "full_fixed_lr": ("scratch", {"finetune.strategy"}),
    "full_cosine": ("full_fixed_lr", {"lr_schedule.name"}),
    "full": ("full_cosine", {"augment.strength"}),
    "linear_probe": ("full", {"finetune.strategy"}),
    "frozen_same_lr": ("full", {"freeze.depth"}),
    "frozen": ("frozen_same_lr", {"optimizer.backbone_multiplier", "optimizer.layer_decay"}),
    "frozen_strong": ("frozen", {"augment.strength"}),
    "frozen_smooth": ("frozen_strong", {"loss.label_smoothing"}),
    "frozen_mixup": ("frozen_smooth", {"augment.mixup"}),
}
ARMS = {"scratch", *STEPS}


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("seed_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["seed_table"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["seed_table"]


@pytest.fixture
def words(tmp_path, monkeypatch, cells):
    """A command for 30 real cells in two classes by their order, of which training keeps 8."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for index, path in enumerate(cells[:30]):
        folder = tmp_path / "images" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    options = {"data": tmp_path / "images", "runs": tmp_path / "runs.jsonl", "limit": 8, "seeds": 1, "epochs": 1}
    options |= {"image-size": 32, "batch-size": 4, "model": "test_resnet", "weights": "random"}
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def task_of(table, words):
    options = table.read_options(words)
    return table.Task(**{name: getattr(options, name) for name in table.Task.__dataclass_fields__}), options.runs


def test_an_arm_differs_from_its_neighbour_in_the_named_factor_alone(table, words):
    task, _ = task_of(table, words)
    configs = {arm: flat(table.trial_config(task, arm=arm, seed=0, data={})) for arm in table.ARMS}
    assert configs.keys() == ARMS
    for arm, (neighbour, paths) in STEPS.items():
        assert table.ARMS[arm].of == neighbour
        assert {path for path in configs[arm] if configs[arm][path] != configs[neighbour][path]} == paths


def flat(config):
    return {
        f"{section}.{name}": value
        for section, values in config.model_dump().items()
        if section != "seed"
        for name, value in values.items()
    }


def test_the_arms_of_the_articles_are_what_they_say(table, words):
    task, _ = task_of(table, words)
    scratch, mixup = (table.trial_config(task, arm=arm, seed=0, data={}) for arm in ("scratch", "frozen_mixup"))
    assert (scratch.finetune.strategy, scratch.optimizer.lr, scratch.augment.strength) == ("scratch", 1e-3, "none")
    assert (mixup.freeze.depth, mixup.augment.mixup, mixup.loss.label_smoothing) == (0.5, 0.2, 0.1)
    assert (mixup.lr_schedule.name, mixup.augment.strength, mixup.finetune.strategy) == ("cosine", "strong", "partial")


def test_a_limit_thins_every_class_of_the_training_images_alone(table, words, tmp_path):
    task, _ = task_of(table, words)
    section = table.data_section(task, folder=tmp_path)
    rows = [line.rsplit(",", 2)[1:] for line in Path(section["path"]).read_text().splitlines()[1:]]
    kept = {split: [label for label, of in rows if of == split] for split in ("train", "val", "test")}
    # Of 15 images a class, 0.15 are 2 in validation and in test; 11 are left, of which 8/22 are 4.
    assert kept == {"train": ["a"] * 4 + ["b"] * 4, "val": ["a"] * 2 + ["b"] * 2, "test": ["a"] * 2 + ["b"] * 2}


@pytest.mark.long
def test_a_table_that_was_cut_off_goes_on_and_holds_every_arm(table, words):
    task, runs = task_of(table, words)
    trained = []

    def train(config):
        if len(trained) == 4:
            trained.append(None)
            raise KeyboardInterrupt
        trained.append(config)
        return table.train_and_test(config)

    with pytest.raises(KeyboardInterrupt):
        table.measure(task, seeds=1, runs=runs, train=train)
    whole = table.measure(task, seeds=1, runs=runs, train=train)
    assert len(trained) == len(ARMS) + 1  # none twice, but for the one that was interrupted

    lines = runs.read_text().splitlines()
    assert [json.loads(line)["arm"] for line in lines] == list(table.ARMS)
    runs.write_text("\n".join([*lines[:-1], lines[-1][:40]]))  # killed while it wrote
    said = subprocess.run([sys.executable, SCRIPT, *words], env=os.environ, capture_output=True, text=True, check=True)
    assert said.stderr.count("seed 0, ") == 1
    rows = said.stdout.splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(table.ARMS)
    last = json.loads(runs.read_text().splitlines()[-1])
    # The last arm once more, in a process of its own: the same numbers but for time and memory.
    for name in ("test/accuracy", "test/balanced_accuracy", "val/balanced_accuracy", "best_epoch"):
        assert last["result"][name] == whole["frozen_mixup"][0][name]


def test_gains_are_differences_seed_by_seed(table):
    accuracy = {"scratch": [0.5, 0.6], "full_fixed_lr": [0.7, 0.9]}
    results = {arm: [{"test/accuracy": value} for value in values] for arm, values in accuracy.items()}
    assert table.transfer_gain(results, arm="full_fixed_lr") == pytest.approx([20, 30])
    assert table.transfer_gain(results, arm="scratch") == [0, 0]
    assert table.step(results, arm="full_fixed_lr") == pytest.approx([20, 30])
    # The sample deviation of 20 and 30 is √50.
    assert table.shown([20, 30], form="{:+.1f}") == "+25.0 ± 7.1"


def test_a_wrong_data_folder_is_one_line(table, words, monkeypatch):
    words[words.index("--data") + 1] = "no/such/folder"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit, match="^error: data.path: 'no/such/folder' does not exist"):
        table.main()
