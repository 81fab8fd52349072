import pytest
import torch
from safetensors.torch import save_file

from trainable import UserError, fit
from trainable.statistics.calibration import Calibration
from trainable.training.checkpoint import BrokenCheckpointError
from trainable.training.finishing import Finish
from trainable.training.setup import set_up
from trainable.training.trained import Trained, export_weights, network_state


@pytest.fixture
def config(make_config):
    return make_config(train={"epochs": 1, "batch_size": 9})


@pytest.fixture
def last(config, tmp_path):
    (epoch,) = fit(config)
    epoch.save(tmp_path / "checkpoint")
    return epoch


def test_a_checkpoint_scores_as_its_epoch_did(config, last, tmp_path):
    trained = Trained(config=config, checkpoint=tmp_path / "checkpoint")
    assert trained.score("val") == last.evaluation
    assert trained.score("test") != last.evaluation


def test_weights_in_one_file_are_scored_as_the_checkpoint_they_come_from(config, last, tmp_path):
    setup, _ = Trained(config=config, checkpoint=tmp_path / "checkpoint").open()
    save_file(
        {name: tensor.contiguous() for name, tensor in setup.network.state_dict().items()},
        tmp_path / "soup.safetensors",
    )
    assert Trained(config=config, soup=tmp_path / "soup.safetensors").score("val") == last.evaluation


def test_a_finish_that_is_none_changes_no_bit_and_another_is_in_what_is_predicted(config, last, tmp_path):
    plain = Trained(config=config, checkpoint=tmp_path / "checkpoint").predict("val").probabilities
    cooler = Finish(calibration=Calibration(tau=0.0, temperature=4.0))
    cooled = Trained(config=config, checkpoint=tmp_path / "checkpoint", finish=cooler).predict("val").probabilities
    assert (cooled.max(axis=1) < plain.max(axis=1)).all()
    assert (cooled.argmax(axis=1) == plain.argmax(axis=1)).all()


def test_a_checkpoint_that_is_not_there_is_said(config, tmp_path):
    with pytest.raises(BrokenCheckpointError):
        Trained(config=config, checkpoint=tmp_path / "none").open()


def test_exported_weights_begin_another_trial_where_the_checkpoint_ended(config, last, tmp_path):
    export_weights(config, checkpoint=tmp_path / "checkpoint", path=tmp_path / "whole.safetensors")
    again = config.model_copy(
        update={"model": config.model.model_copy(update={"weights": str(tmp_path / "whole.safetensors")})}
    )
    state = network_state(Trained(config=config, checkpoint=tmp_path / "checkpoint").open()[0].network)
    begun = set_up(again).network.state_dict()
    backbone = [name for name in state if name.startswith("backbone.")]
    assert backbone
    assert all(torch.equal(begun[name], state[name]) for name in backbone)


def test_weights_with_adapters_that_stay_are_not_written_as_those_of_a_plain_network(config, tmp_path):
    finetune = config.finetune.model_copy(update={"strategy": "adapter"})
    with pytest.raises(UserError) as caught:
        export_weights(config.model_copy(update={"finetune": finetune}), checkpoint=tmp_path, path=tmp_path / "no")
    assert str(caught.value) == (
        "finetune.strategy: a network of 'adapter' has parts that timm's has not, which model.weights cannot take; go on from "
        "its checkpoint"
    )
