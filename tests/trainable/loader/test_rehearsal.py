"""Going on from a fine-tuned network with old images, on real photographs of solar cells."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trainable import UserError, fit
from trainable.data.pack import open_pack
from trainable.loader.rehearsal import join_old, rehearsed
from trainable.model.backbone import input_spec
from trainable.training.fit import begin
from trainable.training.setup import set_up
from trainable.training.trained import export_weights

torch.set_num_threads(1)


@pytest.fixture
def champion(make_config, tmp_path):
    """The whole network of a trial of two epochs."""
    config = make_config(train={"epochs": 2}, optimizer={"lr": 5e-3})
    for epoch in fit(config):
        epoch.save(tmp_path / "checkpoint")
    path = tmp_path / "champion.safetensors"
    export_weights(config, checkpoint=tmp_path / "checkpoint", path=path)
    return path


@pytest.fixture
def old_folder(cell_folder, tmp_path):
    """The same two classes, other photographs than most of the new: the first of each."""
    for name in ("defective", "functional"):
        (tmp_path / "old" / name).mkdir(parents=True)
        for path in sorted((cell_folder / name).iterdir())[:6]:
            shutil.copy(path, tmp_path / "old" / name)
    return tmp_path / "old"


def test_a_trial_begins_with_the_backbone_of_an_exported_network(champion, make_config):
    config = make_config(model={"name": "test_resnet", "weights": str(champion)})
    state, exported = set_up(config).network.state_dict(), load_file(champion)
    backbone = [name for name in exported if name.startswith("backbone.")]
    assert backbone
    assert all(torch.equal(state[name], exported[name]) for name in backbone)
    assert float(state["head.1.weight"].abs().sum()) == 0
    assert float(exported["head.1.weight"].abs().sum()) > 0


def test_old_images_are_shown_beside_the_new_and_others_in_each_epoch(make_config, old_folder):
    config = make_config(data={"rehearsal": str(old_folder), "rehearsal_share": 0.2})
    spec = input_spec(config.model, image_size=32, channels=3)
    new, old = open_pack(config.data, spec), open_pack(config.data.model_copy(update={"path": str(old_folder)}), spec)
    joined = join_old(new, old)
    old_rows = len(new) + old.indices("train")
    epochs = [rehearsed(new.indices("train"), old_rows=old_rows, count=3, seed=0, epoch=e) for e in (1, 2, 1)]
    assert np.array_equal(epochs[0], epochs[2])
    assert not np.array_equal(epochs[0], epochs[1])
    for rows in epochs:
        assert sorted(row for row in rows if row < len(new)) == new.indices("train").tolist()
        assert len([row for row in rows if row >= len(new)]) == 3
    first = int(old_rows[0])
    assert np.array_equal(joined.image(first), old.image(first - len(new)))
    assert new.classes[joined.labels[first]] == old.classes[old.labels[first - len(new)]]


def test_the_shares_of_classes_are_those_of_all_that_an_epoch_shows(make_config, old_folder):
    for path in sorted((old_folder / "defective").iterdir())[:3]:
        path.unlink()
    config = make_config(data={"rehearsal": str(old_folder), "rehearsal_share": 1.0}, loss={"logit_adjustment": 1.0})
    trainer = begin(config)
    shown = torch.cat(
        [batch.targets for batch in trainer.inputs.training(epoch=1, view=1, adaptation=trainer.adaptation)]
    )
    counts = torch.bincount(shown).double()
    torch.testing.assert_close(trainer.state.network.shift.double(), (counts / counts.sum()).log(), atol=1e-6, rtol=0)
    assert len(shown) == len(trainer.inputs.full.pack.indices("train")) + len(trainer.inputs.full.old.indices("train"))


def test_a_class_that_is_no_more_is_refused_by_name(make_config, old_folder):
    (old_folder / "functional").rename(old_folder / "broken")
    with pytest.raises(UserError, match=r"data\.rehearsal: has the class 'broken'.* there are defective, functional"):
        next(fit(make_config(data={"rehearsal": str(old_folder)})))


def test_rehearsing_and_anchored_it_resumes_to_the_bit(champion, make_config, old_folder, tmp_path):
    config = make_config(
        data={"rehearsal": str(old_folder)},
        model={"name": "test_resnet", "weights": str(champion)},
        finetune={"ewc": 1.0},
        train={"epochs": 2},
    )
    straight = list(fit(config))
    first = next(fit(config))
    first.save(tmp_path / "one")
    (second,) = fit(config, resume_from=tmp_path / "one")
    assert second.evaluation == straight[1].evaluation
    assert second.metrics["train/loss"] == straight[1].metrics["train/loss"]


def test_elastic_weights_hold_what_the_old_images_need(champion, make_config, old_folder):
    config = make_config(
        data={"rehearsal": str(old_folder)},
        model={"name": "test_resnet", "weights": str(champion)},
        finetune={"ewc": 1.0},
    )
    anchor, again = begin(config).anchor, begin(config).anchor
    importance = torch.cat([values.flatten() for values in anchor._importance.values()])
    assert float(importance.mean()) == pytest.approx(1.0, rel=1e-4)
    assert float(importance.min()) >= 0
    assert float(importance.max()) > 10  # some weights matter far more than others
    assert all(torch.equal(values, again._importance[name]) for name, values in anchor._importance.items())


def test_elastic_weights_go_by_the_champions_pool_and_refuse_one_of_another_kind(make_config, old_folder, tmp_path):
    size = {"image_size": 64}  # whose last map has more than one position
    pooled = make_config(train={"epochs": 1}, model={"name": "test_resnet", "pool": "gem"}, data=size)
    next(fit(pooled)).save(tmp_path / "checkpoint")
    path = tmp_path / "champion.safetensors"
    export_weights(pooled, checkpoint=tmp_path / "checkpoint", path=path)
    anchored = {"data": size | {"rehearsal": str(old_folder)}, "finetune": {"ewc": 1.0}}
    model = {"name": "test_resnet", "weights": str(path), "pool": "gem"}
    champions = begin(make_config(model=model, **anchored))
    save_file(load_file(path) | {"pool.exponent": torch.tensor([3.0])}, tmp_path / "other.safetensors")
    others = begin(make_config(model=model | {"weights": str(tmp_path / "other.safetensors")}, **anchored)).anchor
    assert champions.state.network.pool.exponent.item() == 3.0
    assert load_file(path)["pool.exponent"].item() != 3.0
    assert any(
        not torch.equal(values, others._importance[name]) for name, values in champions.anchor._importance.items()
    )
    with pytest.raises(UserError, match=r"finetune\.ewc: the network in .* pools otherwise than model\.pool: own"):
        begin(make_config(model=model | {"pool": "own"}, **anchored))


def test_elastic_weights_without_a_head_or_old_images_are_refused_by_name(make_config, old_folder):
    with pytest.raises(UserError, match=r"finetune\.ewc: model\.weights: 'random' holds no head"):
        next(fit(make_config(data={"rehearsal": str(old_folder)}, finetune={"ewc": 1.0})))
    with pytest.raises(ValueError, match=r"finetune\.ewc: needs data\.rehearsal"):
        make_config(finetune={"ewc": 1.0})
