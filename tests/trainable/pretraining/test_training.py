"""Self-supervised pre-training on real photographs of solar cells, small enough for seconds."""

import math
import shutil
import sys

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from trainable.config.pretrain import PretrainConfig
from trainable.config.trial import ModelConfig
from trainable.data.pack import open_pack
from trainable.errors import UserError
from trainable.model.backbone import create_backbone, input_spec
from trainable.pretraining.images import PairLoader
from trainable.pretraining.resumable import BACKBONE
from trainable.pretraining.training import embedding_std, pretrain_epochs

methods = pytest.importorskip("trainable.pretraining.methods", reason="needs lightly: pip install '.[ssl]'")
torch.set_num_threads(1)


def pretrain(config, *, folder):
    """The weights at the end of a training."""
    list(pretrain_epochs(config, folder=folder))
    return folder / BACKBONE


@pytest.fixture(scope="session")
def labelled(tmp_path_factory, cells):
    """40 real cells in two class folders by their order; 28 of them are the train split."""
    root = tmp_path_factory.mktemp("labelled")
    for index, path in enumerate(cells):
        folder = root / ("a" if index % 3 == 0 else "b")
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return root


@pytest.fixture
def make_config(labelled, cache):
    def make(**values):
        base = {
            "epochs": 3,
            "batch_size": 8,
            "projection_width": 16,
            "projection_hidden": 32,
            "queue_size": 16,
            "norm_groups": 2,
            "data": {"path": str(labelled), "image_size": 32, "cache": cache},
            "model": {"name": "test_resnet", "weights": "random"},
        }
        for name, value in values.items():
            base[name] = base[name] | value if isinstance(value, dict) else value
        return PretrainConfig.model_validate(base)

    return make


def spec_of(config):
    return input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_killed_and_resumed_training_ends_with_the_bits_of_an_unbroken_one(method, make_config, tmp_path):
    config = make_config(method=method, epochs=2, model={"drop_path": 0.2})
    straight = list(pretrain_epochs(config, folder=tmp_path / "straight"))
    told = []
    for _ in range(config.epochs):
        told.append(next(pretrain_epochs(config, folder=tmp_path / "broken")))
    assert told == straight
    pretrain(config, folder=tmp_path / "broken")
    files = [tmp_path / folder / "backbone.safetensors" for folder in ("straight", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_state_cut_short_is_passed_over_for_the_one_before(make_config, tmp_path):
    config = make_config()
    straight = list(pretrain_epochs(config, folder=tmp_path))
    kept = sorted(tmp_path.glob("state_*"))
    assert [path.name for path in kept] == ["state_0000002.safetensors", "state_0000003.safetensors"]
    kept[-1].write_bytes(kept[-1].read_bytes()[:-100])
    assert list(pretrain_epochs(config, folder=tmp_path)) == straight[2:]


def test_a_folder_of_other_settings_is_refused_by_name(make_config, tmp_path):
    next(pretrain_epochs(make_config(), folder=tmp_path))
    with pytest.raises(UserError, match=r"holds another training: lr is 0.06 there and 0.05 here"):
        next(pretrain_epochs(make_config(lr=0.05), folder=tmp_path))


def test_a_finished_training_trains_no_more_and_needs_only_the_images_not_their_place(make_config, labelled, tmp_path):
    config = make_config(epochs=1)
    before = pretrain(config, folder=tmp_path / "run").read_bytes()
    moved = shutil.copytree(labelled, tmp_path / "moved")
    again = make_config(epochs=1, data={"path": str(moved), "cache": str(tmp_path / "other cache")})
    assert list(pretrain_epochs(again, folder=tmp_path / "run")) == []
    assert (tmp_path / "run" / "backbone.safetensors").read_bytes() == before


@pytest.mark.parametrize("channels", [1, 3])
def test_the_written_file_is_loaded_by_model_weights_tensor_for_tensor(channels, make_config, tmp_path):
    config = make_config(epochs=1, data={"channels": channels})
    path = pretrain(config, folder=tmp_path)
    model = ModelConfig(name="test_resnet", weights=str(path))
    backbone, _ = create_backbone(model, spec=spec_of(config), generator_seed=5)
    start, _ = create_backbone(config.model, spec=spec_of(config), generator_seed=5)
    written, own = load_file(path), backbone.state_dict()
    assert written.keys() == own.keys()
    assert all(torch.equal(written[name], own[name]) for name in own)
    assert not torch.equal(start.state_dict()["conv1.0.weight"], own["conv1.0.weight"])


def test_only_the_train_split_is_seen_and_never_a_label(make_config):
    config = make_config()
    loader = PairLoader(config, spec=spec_of(config), pin=False)
    pack = open_pack(config.data, spec_of(config))
    assert loader.rows.tolist() == pack.indices("train").tolist()
    loader.pack.labels = None  # whoever read them would fail
    assert sum(len(images) for images in loader.epoch(1)) == 2 * 24


def test_unlabelled_images_in_one_flat_folder_are_all_used_and_kept_apart_from_a_labelled_pack(
    make_config, cells, tmp_path
):
    for path in cells[:16]:
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "flat")
    config = make_config(unlabelled=True, data={"path": str(tmp_path / "flat")})
    assert len(PairLoader(config, spec=spec_of(config), pin=False).rows) == 16
    of_labelled = make_config(unlabelled=True)
    assert len(PairLoader(of_labelled, spec=spec_of(config), pin=False).rows) == 40
    assert open_pack(of_labelled.data, spec_of(config)).classes == ("a", "b")


def test_the_two_views_of_an_image_differ_and_change_with_the_epoch_alone(make_config):
    config = make_config()
    loader = PairLoader(config, spec=spec_of(config), pin=False)
    first, again, other = (next(loader.epoch(number)) for number in (1, 1, 2))
    assert torch.equal(first, again)
    one, two = first.chunk(2)
    assert not any(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(first, other)


def test_the_spread_of_embeddings_is_0_where_they_collapse_and_1_over_root_d_where_they_point_everywhere():
    everywhere = torch.randn(20000, 16, generator=torch.Generator().manual_seed(0))
    assert float(embedding_std(everywhere)) == pytest.approx(1 / math.sqrt(16), rel=0.01)
    assert float(embedding_std(torch.ones(8, 16) * torch.rand(8, 1))) == pytest.approx(0, abs=1e-6)


def test_training_tells_images_apart_that_differ_and_does_not_collapse(make_config, draw_folder, tmp_path):
    """Chance is log(23) = 3.1 nats for 24 views; the images differ in hue, which no view changes."""
    config = make_config(
        epochs=12, batch_size=12, lr=0.03, unlabelled=True, data={"path": str(draw_folder({"all": 24}))}
    )
    told = [epoch.metrics for epoch in pretrain_epochs(config, folder=tmp_path / "run")]
    losses = [metrics["train/loss"] for metrics in told]
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 0.3
    assert told[-1]["train/embedding_std"] > 0.8 / math.sqrt(16)


def test_moco_moves_its_key_network_by_the_momentum_and_queues_the_keys(make_config):
    config = make_config(method="moco", momentum=0.75)
    backbone, _ = create_backbone(config.model, spec=spec_of(config), generator_seed=0)
    moco = methods.MoCo(backbone, width=96, config=config).train()
    with torch.no_grad():
        moco.backbone.conv1[0].weight.fill_(1.0)
        moco.key_backbone.conv1[0].weight.zero_()
    queue = moco.contrast.memory_bank.bank.clone()
    contrast = moco(torch.randn(16, 3, 32, 32), order=torch.Generator().manual_seed(0))
    contrast.loss.backward()
    assert torch.allclose(moco.key_backbone.conv1[0].weight, torch.full((), 0.25))
    assert all(parameter.grad is None for parameter in moco.key_backbone.parameters())
    moved = (moco.contrast.memory_bank.bank != queue).any(dim=1)
    assert moved.tolist() == [True] * 8 + [False] * 8


def test_the_keys_of_moco_stand_in_the_order_of_their_queries(make_config):
    """With equal networks, equal views and no batch norm between images, query and key of an image are one."""
    config = make_config(method="moco", norm_groups=2)
    backbone, _ = create_backbone(config.model, spec=spec_of(config), generator_seed=0)
    moco = methods.MoCo(backbone, width=96, config=config).eval()
    seen = []
    moco.contrast.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs))
    view = torch.randn(8, 3, 32, 32)
    moco(torch.cat([view, view]), order=torch.Generator().manual_seed(0))
    queries, keys = seen[0]
    assert torch.allclose(queries, keys, atol=1e-5)


def test_nt_xent_is_the_cross_entropy_of_hand_worked_similarities(make_config):
    """Two images, views equal and orthogonal to the other's, temperature 0.5: -log(e^2 / (e^2 + 2))."""
    loss = methods.NTXentLoss(temperature=0.5)(torch.eye(2), torch.eye(2))
    assert float(loss) == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)), rel=1e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_size": 64}, "batch_size: 64 is more than the 28 training images"),
        ({"method": "moco", "queue_size": 28}, "queue_size: 28 keys of 28 training images"),
        ({"unlabelled": True, "data": {"path": "nowhere"}}, "data.path: 'nowhere' is no folder"),
    ],
)
def test_what_the_images_cannot_do_is_one_clear_line(values, said, make_config, tmp_path):
    with pytest.raises(UserError, match=said) as caught:
        next(pretrain_epochs(make_config(**values), folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_without_lightly_one_line_says_how_to_get_it(make_config, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "lightly"] + ["trainable.pretraining.methods"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightly", None)
    with pytest.raises(UserError, match=r"method: 'simclr' needs lightly .*; pip install '\.\[ssl\]'") as caught:
        next(pretrain_epochs(make_config(), folder=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": {"class_sampling": "balanced"}}, "data.class_sampling: 'balanced' draws by label"),
        ({"model": {"pool": "gem"}}, "model.pool: 'gem' trains with a head, which pre-training has not; use 'own'"),
        ({"method": "moco", "norm_groups": 8}, "norm_groups: 8 parts of batch_size: 8"),
    ],
)
def test_settings_that_cannot_go_together_are_refused(values, said, make_config):
    with pytest.raises(ValidationError, match=said):
        make_config(**values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", methods.METHODS)
def test_a_gpu_trains_in_bf16_and_goes_on(method, make_config, tmp_path):
    config = make_config(method=method, amp="bf16", device="cuda")
    next(pretrain_epochs(config, folder=tmp_path))
    (_, last) = pretrain_epochs(config, folder=tmp_path)
    assert math.isfinite(last.metrics["train/loss"])
