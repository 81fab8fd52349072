"""A trained network beside others on the same validation images."""

import pytest

from trainable import fit
from trainable.diagnosis.examination import examine
from trainable.statistics.comparison import compare, score_interval
from trainable.training.trained import Trained


@pytest.fixture
def trained(make_config, tmp_path):
    """Makes a network trained for an epoch at a rate, on images of a size, cut by a seed."""

    def make(lr, *, image_size=32, split_seed=0, metric="val/accuracy"):
        data = {"image_size": image_size, "split_seed": split_seed}
        sections = {"data": data, "optimizer": {"lr": lr}, "train": {"epochs": 1, "batch_size": 9, "metric": metric}}
        config = make_config(**sections)
        folder = tmp_path / f"{lr}-{image_size}-{split_seed}"
        if not folder.is_dir():
            (epoch,) = fit(config)
            epoch.save(folder)
        return Trained(config=config, checkpoint=folder)

    return make


def test_its_interval_and_its_gain_are_those_of_the_answers(trained):
    first, second = trained(1e-3), trained(0.3, image_size=48)
    found = examine(first, others={"other": second}, confidence=0.95)
    answers, others = first.predict("val", as_measured=True), second.predict("val", as_measured=True)
    labels = answers.labels
    interval = score_interval(answers.probabilities, labels=labels, metric="accuracy", confidence=0.95)
    assert found["interval"] == {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "num_images": len(labels),
    }
    chosen, other = answers.probabilities.argmax(axis=1), others.probabilities.argmax(axis=1)
    paired = compare(chosen, other, labels=labels, num_classes=2, metric="accuracy", confidence=0.975)
    score = found["comparison"]["others"]["other"]
    assert (score["gain"], score["low"], score["high"]) == (paired.gain.value, paired.gain.low, paired.gain.high)
    assert score["value"] == (other == labels).mean()
    assert found["comparison"]["num_images"] == len(labels)
    pack = first.open()[0].pack
    validation = {pack.names[index] for index in pack.indices("val")}
    shown = {image["name"] for kind in ("confident", "unsure", "suspected") for image in found["mistakes"][kind]}
    assert shown
    assert shown <= validation  # nothing of the test split
    assert sum(map(sum, found["mistakes"]["confusion"]["counts"])) == len(labels)
    assert found["comparison"]["own_size"] == 160  # of timm's test_resnet


def test_others_whose_weights_are_gone_or_that_know_other_images_are_left_out(trained, tmp_path, caplog):
    first = trained(1e-3)
    gone = Trained(config=first.config, checkpoint=tmp_path / "gone")
    found = examine(first, others={"gone": gone, "cut": trained(1e-3, split_seed=1)}, confidence=0.95)
    assert found["comparison"]["others"] == {}
    assert "gone is not compared with the final candidate" in caplog.text


def test_by_a_metric_that_no_image_has_alone_there_is_no_comparison(trained):
    first = trained(1e-3, metric="val/ece")
    found = examine(first, others={"same": first}, confidence=0.95)
    assert (found["interval"], found["comparison"]["others"]) == (None, {})
