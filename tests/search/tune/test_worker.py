"""What a worker answers, asked without a cluster."""

import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
from timm.models.convnext import ConvNeXt
from torch.nn.modules.module import register_module_forward_pre_hook

from search.engine.reports import Infeasible, Measured, StopSearch, read_report
from search.tune import tasks
from search.tune.place import Place
from search.tune.preparation import prepare
from search.tune.submit import TaskName, run_task
from search.tune.worker import TrialActor, leg_settings
from trainable.data.image_guard import ImagesChangedError


@pytest.fixture
def trial(cell_folder, tmp_path):
    """A small trial on images that may change."""
    shutil.copytree(cell_folder, tmp_path / "images")
    return {
        "data": {"path": str(tmp_path / "images"), "image_size": 32, "cache": str(tmp_path / "cache")},
        "model": {"name": "test_resnet", "weights": "random"},
        "train": {"epochs": 3, "batch_size": 9, "metric": "val/accuracy"},
    }


def leg(trial, tmp_path, *, start, fingerprints, measure=(), **of_place):
    """What a worker reports of a leg, an answer a step."""
    actor = object.__new__(TrialActor)  # Ray makes its own
    actor.setup(
        leg_settings(
            trial=trial,
            folder=tmp_path / "checkpoints",
            start=start,
            place=Place(
                cpu=1, threads=1, fingerprints=fingerprints, directory=str(Path.cwd()), **{"gpu": 0, **of_place}
            ),
            measure=measure,
        )
    )
    while True:
        yield read_report(actor.step())


def test_a_leg_on_other_images_stops_the_search_and_leaves_no_epoch(trial, tmp_path):
    fingerprints = prepare([trial]).fingerprints
    answers = leg(trial, tmp_path, start=0, fingerprints=fingerprints)
    assert next(answers).number == 1
    new = tmp_path / "images" / "functional" / "new.png"
    new.write_bytes(min(new.parent.iterdir()).read_bytes() + b"\0")
    assert next(answers).number == 2  # the images that it began with are mapped
    later = next(leg(trial, tmp_path, start=2, fingerprints=fingerprints))
    assert isinstance(later, StopSearch)
    assert later.reason.startswith("data.path: the images have changed since this search began")
    assert not (tmp_path / "checkpoints" / "epoch_00003").exists()
    new.unlink()
    assert next(leg(trial, tmp_path, start=2, fingerprints=fingerprints)).number == 3


def test_what_is_done_around_the_trials_is_held_to_their_images(trial, tmp_path):
    fingerprints = prepare([trial]).fingerprints
    drawn = {"reference": trial, "sample": 20, "threads": 1, "fingerprints": fingerprints, "directory": str(Path.cwd())}
    scored = run_task("backbone_score", trial, seconds=None, **drawn)
    assert run_task("backbone_outlooks", [trial], **drawn) == [{"gmacs": scored["gmacs"], "score": scored}]
    next((tmp_path / "images" / "functional").iterdir()).unlink()
    with pytest.raises(ImagesChangedError):
        run_task("backbone_score", trial, seconds=None, **drawn)


def test_every_data_set_of_a_search_may_be_trained_on(trial, tmp_path):
    shutil.copytree(tmp_path / "images", tmp_path / "others")
    next((tmp_path / "others" / "functional").iterdir()).unlink()
    other = trial | {"data": trial["data"] | {"path": str(tmp_path / "others"), "rehearsal": str(tmp_path / "images")}}
    fingerprints = prepare([trial, other]).fingerprints
    assert len(fingerprints["path"]) == 2
    assert set(fingerprints["rehearsal"]) < set(fingerprints["path"])
    for one in (trial, other):
        run_task("probe_scores", one, kinds=["logreg"], threads=1, fingerprints=fingerprints, directory=str(Path.cwd()))


def test_unlabelled_images_are_counted_once_and_held_to(trial, tmp_path, draw_image, caplog):
    for number in range(4):
        draw_image(tmp_path / "wild" / f"{number}.png", number=900 + number)
    beside = trial | {"distill": {"teachers": ["a model"], "unlabelled": str(tmp_path / "wild")}}
    fingerprints = prepare([trial, beside, beside]).fingerprints
    assert len(fingerprints["distill.unlabelled"]) == 1
    assert [record.message for record in caplog.records].count(
        "distill.unlabelled: 4 images are learnt from teachers alone, 50% of each batch"
    ) == 1


def test_the_work_that_can_be_sent_is_what_there_is():
    functions = {name for name, value in vars(tasks).items() if getattr(value, "__module__", "") == tasks.__name__}
    assert set(get_args(TaskName)) == {name for name in functions if not name.startswith("_")}


def test_the_first_epoch_of_a_leg_says_what_its_start_took(trial, tmp_path):
    fingerprints = prepare([trial]).fingerprints
    answers = leg(trial, tmp_path, start=0, fingerprints=fingerprints)
    assert 0 < next(answers).metrics["usage/start_seconds"] < 60
    assert "usage/start_seconds" not in next(answers).metrics
    assert 0 < next(leg(trial, tmp_path, start=2, fingerprints=fingerprints)).metrics["usage/start_seconds"] < 60


def test_epochs_tell_the_share_of_a_gpu_that_was_decided_by_measurement_and_no_other(trial, tmp_path):
    fingerprints = prepare([trial]).fingerprints
    packed = next(leg(trial, tmp_path, start=0, fingerprints=fingerprints, gpu=0.25, packed=True))
    assert packed.metrics["usage/gpu_share"] == 0.25
    fixed = next(leg(trial, tmp_path, start=1, fingerprints=fingerprints, gpu=0.25))
    assert "usage/gpu_share" not in fixed.metrics


def test_what_the_network_takes_is_told_once_before_the_first_epoch_and_only_what_is_asked_for(trial, tmp_path):
    fingerprints = prepare([trial]).fingerprints
    answers = leg(trial, tmp_path, start=0, fingerprints=fingerprints, measure=["model/parameters"])
    told = next(answers)
    assert isinstance(told, Measured)
    assert told.values.keys() == {"model/parameters"}
    assert [next(answers).number, next(answers).number] == [1, 2]


def test_a_network_is_measured_on_the_images_of_the_search_alone(trial, tmp_path):
    fingerprints = prepare([trial]).fingerprints
    next((tmp_path / "images" / "functional").iterdir()).unlink()
    told = next(leg(trial, tmp_path, start=0, fingerprints=fingerprints, measure=["model/parameters"]))
    assert isinstance(told, StopSearch)


@pytest.fixture
def memory():
    """Lets a ConvNeXt run out of memory with more than ``most`` images at once, and counts how often it did.

    Where there is a ``then``, that many fit from the first time on.
    """
    state = {"most": 4, "refused": 0}

    def allocate(module, arguments):
        if isinstance(module, ConvNeXt) and len(arguments[0]) > state["most"]:
            state["refused"] += 1
            state["most"] = state.get("then", state["most"])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    hook = register_module_forward_pre_hook(allocate)
    yield state
    hook.remove()


def test_a_batch_that_does_not_fit_into_memory_is_trained_in_parts(trial, tmp_path, memory):
    model = {"name": "test_convnext", "weights": "random"}
    trial |= {"model": model, "train": trial["train"] | {"batch_size": 16}}
    memory["most"] = 100
    fingerprints = prepare([trial]).fingerprints
    memory |= {"most": 4, "refused": 0}
    answers = leg(trial, tmp_path, start=0, fingerprints=fingerprints)
    first = next(answers)
    assert (first.metrics["usage/batch_size"], first.metrics["usage/halvings"]) == (4, 2)
    assert memory["refused"] == 3  # at 16 twice, since another might have taken the memory, and at 8
    memory["most"] = 2
    second = next(answers)
    assert (second.number, second.metrics["usage/batch_size"]) == (2, 2)
    memory["most"] = 1
    infeasible = next(answers)
    assert infeasible == Infeasible("out of GPU memory with batches of 2: CUDA out of memory. Tried to allocate 2 GiB")
    memory["most"] = 100
    last = next(leg(trial, tmp_path, start=2, fingerprints=fingerprints))
    assert (last.number, last.metrics["usage/batch_size"], "usage/halvings" in last.metrics) == (3, 16, False)


@pytest.mark.parametrize(("of_place", "tells"), [({"gpu": 0.25, "packed": True}, True), ({"gpu": 0.25}, False)])
def test_an_epoch_that_fits_only_beyond_its_share_of_a_gpu_tells_it(trial, tmp_path, memory, of_place, tells):
    trial |= {"model": {"name": "test_convnext", "weights": "random"}}
    memory["most"] = 100
    fingerprints = prepare([trial]).fingerprints
    memory |= {"most": 4, "then": 100}
    first = next(leg(trial, tmp_path, start=0, fingerprints=fingerprints, **of_place))
    assert memory["refused"] == 1
    assert ("usage/over_share" in first.metrics, "usage/halvings" in first.metrics) == (tells, False)
