"""What an automatic search writes for real solar cells, by a network with random weights."""

import pytest

from search.diagnosis import automatic
from search.diagnosis.request import Request, is_written
from search.space.lint import lint
from search.space.loading import load
from trainable.errors import UserError


@pytest.fixture
def write(cell_folder, cache, tmp_path, monkeypatch):
    """Writes the space file of a request for 40 cells; gives it with what was told."""
    monkeypatch.chdir(tmp_path)

    def written(*overrides, minutes=20.0):
        small = (f"data.cache={cache}", "data.image_size=32", *overrides)
        request = Request(data=str(cell_folder), name="mine", model="test_resnet", weights="random", overrides=small)
        lines = []
        automatic.write_automatic_space(request, minutes=minutes, tell=lines.append)
        return request, lines

    return written


def test_the_file_says_what_was_told_and_is_a_space_to_the_point(write):
    request, told = write()
    spec, text = load(request.file), request.file.read_text()
    assert is_written(request)
    assert lint(spec) == []
    assert (spec.search.name, spec.search.budget.minutes, spec.search.trials) == ("mine", 20.0, None)
    assert (spec.base["model.name"], spec.base["model.weights"], spec.base["data.image_size"]) == (
        "test_resnet",
        "random",
        32,
    )
    assert spec.baselines == ["linear_probe"]
    assert "  40 images of 2 classes" in told
    whats = [line.partition(":")[0] for line in told if line.endswith("decides otherwise")]
    assert whats == ["backbone", "image size", "look", "what trains", "freeze depths", "symmetries", "time"]
    in_one_line = " ".join(text.replace("#", " ").split())
    assert all(" ".join(line.split()) in in_one_line for line in told if line.endswith("decides otherwise"))
    assert told[told.index("space: mine.yaml") + 1].startswith("  search: {name: mine,")

    before = request.file.read_bytes()
    write()
    assert request.file.read_bytes() == before


def test_where_the_time_holds_few_passes_of_the_images_heads_are_searched(write):
    request, told = write(minutes=1e-4)
    spec = load(request.file)
    assert lint(spec) == []
    assert spec.space.dimensions["finetune.strategy"].members == ("linear_probe", "partial")
    assert (spec.base["augment.strength"], spec.base["model.pool"]) == ("none", "stages")
    assert spec.scheduler.max_epochs == 3
    assert any(line.startswith("pace: heads that are solved for") for line in told)
    request.file.unlink()
    request, _ = write("finetune.strategy=partial", "augment.strength=light", minutes=1e-4)
    assert load(request.file).base["augment.strength"] == "light"


def test_what_is_asked_for_is_in_the_file(write):
    request, _ = write(
        "finetune.strategy=full", "augment.flip=both", "search.seed=3", "train.batch_size=4", minutes=90.0
    )
    spec = load(request.file)
    assert (spec.base["finetune.strategy"], spec.base["augment.flip"], spec.base["train.batch_size"]) == (
        "full",
        "both",
        4,
    )
    assert (spec.search.seed, spec.scheduler.max_epochs) == (3, 27)
    assert "freeze.depth" not in spec.vary


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.learning=1", "--set optimizer.learning: unknown path"),
        ("optimizer.lr=-1", "mine.yaml: base.optimizer.lr: got -1"),
        ("model.weights=mine.safetensors", "model.weights: .*mine.safetensors"),
        ("data.format=folders", "mine.yaml: base.data.format: got 'folders'"),
    ],
)
def test_a_mistake_is_said_before_the_look(write, override, line, monkeypatch):
    monkeypatch.setattr(automatic, "look", None)  # a call of it would be a TypeError
    with pytest.raises(UserError, match=f"^{line}"):
        write(override)
