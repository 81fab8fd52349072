"""What a student learns from its teachers."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trainable import fit
from trainable.errors import UserError
from trainable.serving.encoded import encoded_images
from trainable.serving.package import load_package, package
from trainable.training import teacher
from trainable.training.fit import begin
from trainable.training.setup import set_up
from trainable.training.teacher import soft_targets


@pytest.fixture(scope="module")
def taught(tmp_path_factory, cell_folder):
    """A packaged teacher that looks at larger images than its students."""
    from trainable import TrialConfig

    root = tmp_path_factory.mktemp("teacher")
    config = TrialConfig.model_validate(
        {
            "data": {"path": str(cell_folder), "image_size": 48, "cache": str(root / "cache")},
            "model": {"name": "test_resnet", "weights": "random"},
            "train": {"epochs": 2, "batch_size": 9},
            "augment": {"flip": "both"},
        }
    )
    (*_, last) = fit(config)
    last.save(root / "checkpoint")
    package(
        config, folder=root / "model/artifacts/package", checkpoint=root / "checkpoint", finish=("views", "calibration")
    )
    return root / "model"


@pytest.fixture
def student(make_config, taught):
    def make(*, weight=0.25, temperature=2.0, distill=None, **sections):
        distill = {"teachers": [str(taught)], "weight": weight, "temperature": temperature} | (distill or {})
        return make_config(train={"epochs": 2, "batch_size": 9}, distill=distill, **sections)

    return make


def test_targets_are_labels_and_the_softened_answers_of_the_packaged_model(student, taught):
    config = student()
    served = load_package(taught / "artifacts/package", device="cpu")
    setup = set_up(config)
    targets = soft_targets(setup)
    rows = {int(sample): row for row, sample in enumerate(setup.pack.sample_ids)}
    images = encoded_images(config, split="train")
    answers = served.probabilities([image.read_bytes() for image in images]) ** 0.5
    answers /= answers.sum(axis=1, keepdims=True)
    for image, answer in zip(images, answers, strict=True):
        label = np.eye(len(served.classes))[served.classes.index(image.label)]
        expected = 0.75 * label + 0.25 * answer
        assert targets[rows[image.sample_id]].numpy() == pytest.approx(expected, abs=1e-4)  # batches of another size
    assert float(targets.sum()) == pytest.approx(len(images), abs=1e-3)  # nothing for images that do not train


def test_a_student_without_teachers_has_labels(make_config):
    assert soft_targets(set_up(make_config())) is None


def test_answers_are_kept_and_asked_for_once(student, monkeypatch):
    config = student()
    first = soft_targets(set_up(config))
    monkeypatch.setattr(teacher, "_of_training", None)  # asked again, this would fail
    assert torch.equal(soft_targets(set_up(config)), first)
    assert not torch.equal(soft_targets(set_up(student(weight=0.5))), first)


def test_teachers_that_agree_with_the_labels_change_nothing(student, make_config, tmp_path, monkeypatch):
    def certain(_package, *, description, student):
        labels = student.pack.labels[student.pack.indices("train")]
        return np.log(np.maximum(np.eye(len(student.pack.classes))[labels], 1e-300))

    monkeypatch.setattr(teacher, "_of_training", certain)
    data = {"cache": str(tmp_path / "cache")}
    for depth in (0.0, 1.0):  # with images, and with what frozen layers make of them
        taught = [epoch.metrics["train/loss"] for epoch in fit(student(freeze={"depth": depth}, data=data))]
        alone = make_config(train={"epochs": 2, "batch_size": 9}, freeze={"depth": depth}, data=data)
        assert taught == pytest.approx([epoch.metrics["train/loss"] for epoch in fit(alone)], rel=1e-5)


def test_teachers_are_learnt_from_and_the_answer_goes_on_from_a_checkpoint(student, make_config, tmp_path):
    epochs = fit(student(weight=1.0))
    first = next(epochs)
    first.save(tmp_path / "checkpoint")
    second = next(epochs)
    (resumed,) = fit(student(weight=1.0), resume_from=tmp_path / "checkpoint")
    assert resumed.metrics["train/loss"] == second.metrics["train/loss"]
    alone = next(fit(make_config(train={"epochs": 2, "batch_size": 9})))
    assert first.metrics["train/loss"] != pytest.approx(alone.metrics["train/loss"], rel=1e-3)


def test_what_is_no_teacher_is_one_line(student, make_config, tmp_path, taught):
    with pytest.raises(UserError, match=r"distill.teachers: .* is no packaged model, it has no model.json"):
        soft_targets(set_up(make_config(distill={"teachers": [str(tmp_path)]})))
    other = tmp_path / "other"
    shutil.copytree(taught / "artifacts/package", other)
    description = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**description, "classes": ["a", "b"]}))
    with pytest.raises(UserError, match="tells apart a, b, the images are of"):
        soft_targets(set_up(make_config(distill={"teachers": [str(other)]})))
    (other / "model.json").write_text(json.dumps(description))
    (other / "images.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="images.parquet' cannot be read"):
        soft_targets(set_up(make_config(distill={"teachers": [str(other)]})))
    with pytest.raises(UserError, match=r"has learnt from \d+ (val|test) images of the student"):
        soft_targets(set_up(student(data={"split_seed": 7})))


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_images_of_which_no_teacher_is_asked_are_refused(student, mixing):
    with pytest.raises(ValueError, match=f"distill.teachers: excludes augment.{mixing}"):
        student(augment={mixing: 0.2})


def test_answers_lie_in_the_cache_of_the_data(student, tmp_path):
    soft_targets(set_up(student(data={"cache": str(tmp_path)})))
    (file,) = (tmp_path / "teachers").iterdir()
    assert load_file(file)["answers"].dtype == torch.float64


@pytest.fixture
def wild(tmp_path, draw_image):
    """Images without labels."""
    for number in range(8):
        draw_image(tmp_path / "wild" / f"{number}.png", number=number, size=(64, 64))
    return tmp_path / "wild"


def test_unlabelled_images_have_the_softened_answers_of_the_packaged_model_alone(student, taught, wild, monkeypatch):
    config = student(distill={"unlabelled": str(wild)})
    setup = set_up(config)
    targets, beside = soft_targets(setup), setup.inputs.full.unlabelled
    served = load_package(taught / "artifacts/package", device="cpu")
    assert targets.shape == (len(setup.pack) + 8, 2)
    for row in beside.rows:
        answers = served.probabilities([(wild / beside.pack.names[row]).read_bytes()])[0] ** 0.5
        assert targets[len(setup.pack) + row].numpy() == pytest.approx(answers / answers.sum(), abs=1e-4)
    assert torch.equal(targets[: len(setup.pack)], soft_targets(set_up(student())))
    monkeypatch.setattr(teacher, "_of_unlabelled", None)  # asked again, this would fail
    assert torch.equal(soft_targets(set_up(config)), targets)


def test_unlabelled_images_train_in_every_batch_and_the_answer_goes_on_from_a_checkpoint(student, wild, tmp_path):
    config = student(
        distill={"unlabelled": str(wild), "unlabelled_share": 0.25},
        data={"image_size": 48, "early_size": 32, "early_epochs": 1},
    )
    trainer = begin(config)
    num_labelled = len(trainer.inputs.full.pack.indices("train"))
    for epoch, size in ((1, 32), (2, 48)):
        shown = list(trainer.inputs.training(epoch=epoch, view=epoch, adaptation=trainer.adaptation))
        assert {batch.images.shape[-1] for batch in shown} == {size}
        assert sum(len(batch.images) for batch in shown) == num_labelled + round(num_labelled / 3)
        torch.testing.assert_close(
            torch.cat([batch.targets for batch in shown]).sum(dim=1), torch.ones(trainer.inputs.num_images)
        )
    epochs = fit(config)
    first = next(epochs)
    first.save(tmp_path / "checkpoint")
    second = next(epochs)
    (resumed,) = fit(config, resume_from=tmp_path / "checkpoint")
    assert resumed.evaluation == second.evaluation
    assert resumed.metrics["train/loss"] == second.metrics["train/loss"]
    assert first.metrics["train/loss"] != pytest.approx(next(fit(student())).metrics["train/loss"], rel=1e-3)
