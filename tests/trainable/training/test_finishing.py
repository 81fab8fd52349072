import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from trainable import fit
from trainable.loader.symmetries import symmetries, turned
from trainable.statistics.calibration import Calibration, cross_entropy
from trainable.training.finishing import Finish, _Judge, find_finish, log_shares_of, read_finish
from trainable.training.measure import Measurer
from trainable.training.setup import set_up
from trainable.training.trained import Trained, export_weights

STEPS = ("views", "calibration")
SHARP = Calibration(tau=0.0, temperature=0.01)
VARIED = {"strength": "light", "flip": "both"}


@pytest.fixture
def trained(make_config, tmp_path):
    """A network that is much too sure: trained for two epochs, its logits made a hundred times as large."""
    config = make_config(train={"epochs": 2, "batch_size": 9}, augment=VARIED)
    (*_, last) = fit(config)
    last.save(tmp_path / "checkpoint")
    return Trained(config=config, checkpoint=tmp_path / "checkpoint", finish=Finish(calibration=SHARP))


def found(trained, steps=STEPS):
    setup, epoch = trained.open()
    return find_finish(setup, measurer=Measurer(config=setup.config, inputs=setup.inputs), steps=steps, epoch=epoch)


def test_steps_that_lower_the_loss_on_images_they_were_not_fitted_to_stay(trained):
    finish = found(trained)
    assert [tried.step for tried in finish.tried] == list(STEPS)
    views, calibration = finish.tried
    assert calibration.kept
    assert calibration.after["balanced_loss"] < calibration.before["balanced_loss"]
    assert finish.calibration.temperature > 1.3
    assert finish.views == (tuple(symmetries(trained.config.augment)[1:]) if views.kept else ())


def test_what_lowers_no_loss_is_left_out(make_config, tmp_path):
    config = make_config(train={"epochs": 1, "batch_size": 9}, augment=VARIED, optimizer={"lr": 1e-9})
    (last,) = fit(config)  # its head is still at zero: no view and no temperature changes anything
    last.save(tmp_path / "checkpoint")
    finish = found(Trained(config=config, checkpoint=tmp_path / "checkpoint"), ("views",))
    assert finish == Finish()
    assert [tried.kept for tried in finish.tried] == [False]


def test_a_network_that_is_asked_for_nothing_is_left_as_it_is(trained):
    assert found(trained, steps=()) == Finish()


def test_a_network_for_another_domain_is_given_a_temperature_alone(trained):
    setup, epoch = trained.open()
    adapted = trained.config.model_copy(update={"data": trained.config.data.model_copy(update={"target": "poly"})})
    measurer = Measurer(config=trained.config, inputs=setup.inputs)
    finish = find_finish(replace(setup, config=adapted), measurer=measurer, steps=STEPS, epoch=epoch)
    assert [tried.step for tried in finish.tried] == ["calibration"]
    assert finish.calibration.temperature > 1.3
    assert finish.calibration.tau == 0


@pytest.fixture
def led_astray(make_config, tmp_path):
    """A network that began with weights trained for these images, and has left them at random since."""
    config = make_config(train={"epochs": 3, "batch_size": 9})
    (*_, last) = fit(config)
    last.save(tmp_path / "before")
    export_weights(config, checkpoint=tmp_path / "before", path=tmp_path / "weights.safetensors")
    config = make_config(model={"weights": str(tmp_path / "weights.safetensors")}, train={"epochs": 2, "batch_size": 9})
    (*_, last) = fit(config)
    last.save(tmp_path / "checkpoint")
    setup, epoch = Trained(config=config, checkpoint=tmp_path / "checkpoint").open()
    randomness = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in setup.network.backbone.parameters():
            parameter += 0.5 * parameter.std() * torch.randn(parameter.shape, generator=randomness)
    return setup, epoch


def test_weights_are_brought_nearer_to_where_they_began_where_that_helps(led_astray):
    setup, epoch = led_astray
    measurer = Measurer(config=setup.config, inputs=setup.inputs)
    before = {name: tensor.clone() for name, tensor in setup.network.state_dict().items()}
    finish = find_finish(setup, measurer=measurer, steps=("interpolation",), epoch=epoch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in setup.network.state_dict().items())
    (tried,) = finish.tried
    assert tried.kept
    assert tried.after["balanced_loss"] < tried.before["balanced_loss"]
    loss = cross_entropy_of(setup, measurer, epoch=epoch)
    assert loss == pytest.approx(tried.before["balanced_loss"])
    finish.apply(setup)
    assert finish.interpolation < 1
    assert cross_entropy_of(setup, measurer, epoch=epoch) < loss


def cross_entropy_of(setup, measurer, *, epoch):
    predicted = measurer.predict(setup.network, "val", epoch=epoch)
    return cross_entropy(np.log(predicted.probabilities), labels=predicted.labels, balanced=True)


def test_a_network_that_began_with_nothing_goes_back_nowhere(trained):
    assert found(trained, ("interpolation",)) == Finish()


def test_a_finished_network_gives_the_calibrated_mean_over_its_views(trained):
    plain, _ = Trained(config=trained.config, checkpoint=trained.checkpoint).open()
    views = tuple(symmetries(trained.config.augment)[1:])
    finish = Finish(views=views, calibration=Calibration(tau=0.5, temperature=2.0))
    finished, epoch = Trained(config=trained.config, checkpoint=trained.checkpoint, finish=finish).open()
    images, _ = next(plain.inputs.split("val", epoch=epoch))
    shares = log_shares_of(plain)
    with torch.inference_mode():
        each = [plain.network.eval()(turned(images, view)) for view in ((0, ()), *views)]
        expected = (torch.stack(each).mean(dim=0) - 0.5 * shares) / 2
        assert torch.allclose(finished.network.eval()(images), expected, atol=1e-5)


def test_what_is_found_is_what_the_finished_network_makes_of_the_images(trained):
    finish = found(trained)
    both = Finish(views=finish.views, calibration=SHARP)  # the same network once more, its views known
    logits = np.log(
        Trained(config=trained.config, checkpoint=trained.checkpoint, finish=both).predict("val").probabilities
    )
    setup, _ = trained.open()
    calibrated = finish.calibration.apply(logits, log_shares=log_shares_of(setup).double().numpy())
    assert np.isfinite(softmax(calibrated, axis=1)).all()
    labels = trained.predict("val").labels
    after, before = (cross_entropy(each, labels=labels, balanced=True) for each in (calibrated, logits))
    assert after < before


def test_a_finish_is_read_from_its_dict(trained):
    finish = found(trained)
    assert read_finish(finish.as_dict()) == finish
    assert read_finish({}) == Finish()
    weighed = replace(finish, class_weights=(0.5, 1.5))
    assert read_finish(json.loads(json.dumps(weighed.as_dict()))) == weighed


@pytest.mark.parametrize(("metric", "fits"), [("balanced_accuracy", True), ("loss", True), ("macro_f1", False)])
def test_the_classes_shares_are_fitted_for_metrics_of_which_it_is_known_how_they_count(make_config, metric, fits):
    setup = set_up(make_config(train={"metric": f"val/{metric}"}))
    labels = np.arange(60) % 2
    judge = _Judge(setup, labels=labels, calibrates=True)
    logits = np.random.default_rng(0).normal(0, 1, (60, 2)) + 2 * log_shares_of(setup).double().numpy()
    assert (judge.fit(logits, labels).tau != 0) == fits


def skewed(num=600):
    """Right probabilities of two classes, one of them rare, which the likeliest class hardly ever is."""
    chance = np.random.default_rng(0)
    logits = np.stack([np.full(num, 2.0), chance.normal(0, 1.2, num)], axis=1)
    return logits, (chance.random(num) < softmax(logits, axis=1)[:, 1]).astype(int)


def weighed(make_config, metric):
    """What is tried of weights of classes on made-up answers, and the judge of them."""
    setup = set_up(make_config(train={"metric": metric}))
    logits, labels = skewed()
    judge = _Judge(setup, labels=labels, calibrates=False)
    return judge.try_class_weights(judge.look(logits))


def test_classes_are_weighed_for_the_metric_where_it_gains(make_config):
    found = weighed(make_config, "val/macro_f1")
    assert (found.tried.step, found.tried.by, found.tried.kept) == ("class_weights", "macro_f1", True)
    assert found.tried.after["macro_f1"] > found.tried.before["macro_f1"] + 0.03
    assert found.weights[1] > 1.2 > 0.9 > found.weights[0]


def test_weights_of_classes_that_gain_nothing_are_left_out(make_config):
    assert not weighed(make_config, "val/accuracy").tried.kept


def test_for_the_loss_no_classes_are_weighed(make_config):
    assert weighed(make_config, "val/loss") is None


def test_weights_of_classes_are_tried_last_on_the_calibrated_network(trained):
    finish = found(trained, ("class_weights", "calibration"))
    assert [tried.step for tried in finish.tried] == ["calibration", "class_weights"]
    assert finish.tried[1].before == finish.tried[0].after
    assert bool(finish.class_weights) == finish.tried[1].kept


def test_a_weighed_network_gives_probabilities_times_the_weights(trained):
    weights = (0.5, 2.0, 1.0)[: len(trained.open()[0].pack.classes)]
    calibrated = replace(trained, finish=Finish(calibration=Calibration(tau=0.5, temperature=2.0)))
    finished = replace(trained, finish=replace(calibrated.finish, class_weights=weights))
    expected = calibrated.predict("val").probabilities * np.array(weights)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(finished.predict("val").probabilities, expected, atol=1e-6)


def test_a_class_with_few_validation_images_is_not_judged_by_them(make_config):
    setup = set_up(make_config())
    labels = np.array([0] * 30 + [1] * 4)
    logits = np.random.default_rng(0).normal(0, 1, (34, 2))
    assert _Judge(setup, labels=labels, calibrates=True).fit(logits, labels).tau == 0
