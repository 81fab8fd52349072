"""An export from beginning to end: its files, its table, and what stops it before anything is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trainable.config.trial import FinetuneConfig
from trainable.deploy import onnx
from trainable.deploy.exporting import TABLE, Wanted, export, export_weights_file, load_network
from trainable.deploy.recovery import Recovery
from trainable.errors import UserError
from trainable.training.inputs import open_images

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    wanted = Wanted(to=("onnx",), int8=True, prune=0.3, recovery=Recovery(epochs=2, lr=1e-3))
    return folder, export(trained.network, config=trained.config, wanted=wanted, folder=folder)


def test_the_table_has_a_row_for_each_form_and_is_in_the_folder(exported):
    folder, rows = exported
    pruned = f"{100 * rows[-1].pruned:.0f} % pruned"
    plain = ["torch fp32", "onnx fp32", "onnx int8"]
    assert [row.name for row in rows] == plain + [f"{name}, {pruned}" for name in plain]
    assert json.loads((folder / TABLE).read_text()) == [row.as_dict() for row in rows]
    assert {path.name for path in folder.iterdir()} == {TABLE, *(row.file for row in rows if row.file)}
    for row in rows:
        assert row.file is None or row.size_mb == (folder / row.file).stat().st_size / 1e6


def test_scores_and_agreement_are_those_of_each_file(exported, trained):
    folder, rows = exported
    own = trained.logits(trained.pixels).argmax(axis=1)
    for row in rows:
        if row.file is not None:
            found = onnx.open_file(folder / row.file)(trained.pixels).argmax(axis=1)
            assert row.agreement == pytest.approx((found == own).mean())
    assert rows[0].agreement == 1.0
    assert rows[0].accuracy >= 0.7  # it has learnt something to keep
    assert {(row.accuracy, row.balanced_accuracy) for row in rows[:2]} == {
        (rows[0].accuracy, rows[0].balanced_accuracy)
    }
    assert all(row.max_difference <= 1e-4 for row in rows if row.precision == "fp32")
    assert all(row.latency_ms_1 > 0 and row.latency_ms_32 > 0 for row in rows)


def test_8_bits_keep_most_predictions_in_a_third_of_the_size(exported):
    _, rows = exported
    _, plain, quantized, _, pruned, pruned_quantized = rows
    assert quantized.agreement >= 0.9
    assert quantized.size_mb < plain.size_mb / 3
    assert pruned_quantized.size_mb < pruned.size_mb / 3
    assert quantized.note.endswith("100 % of the weights are in convolutions")


def test_a_pruned_network_is_smaller_and_still_right(exported):
    _, rows = exported
    full, pruned = rows[0], rows[3]
    assert 0.3 <= pruned.pruned <= 0.34
    assert pruned.parameters == pytest.approx((1 - pruned.pruned) * full.parameters, abs=1)
    assert pruned.size_mb < 0.72 * full.size_mb
    assert (
        pruned.accuracy >= full.accuracy - 0.15
    )  # 9 of 60 images: of those a chance more or less are right after every training
    assert pruned.note == "trained again for 2 epochs at rate 0.001"


def test_an_onnx_file_says_its_input_and_classes_and_refuses_normalised_images(exported, trained):
    onnxruntime = pytest.importorskip("onnxruntime")
    for name in ("model.onnx", "model.int8.onnx"):
        session = onnxruntime.InferenceSession(exported[0] / name)
        [images] = session.get_inputs()
        assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
        assert isinstance(images.shape[0], str)
        said = json.loads(session.get_modelmeta().custom_metadata_map["description"])
        assert said["classes"] == ["defective", "functional"]
        assert said["input"]["size"] == 32
        logits, probabilities = session.run(None, {"images": trained.pixels.numpy()})
        np.testing.assert_allclose(probabilities, torch.from_numpy(logits).softmax(dim=1), atol=1e-2)
        with pytest.raises(Exception, match="uint8"):
            session.run(None, {"images": trained.pixels.float().numpy()})


def test_a_file_holds_no_path_of_the_machine_that_wrote_it(exported):
    for path in exported[0].glob("*.onnx"):
        assert b"site-packages" not in path.read_bytes()
        assert str(ROOT).encode() not in path.read_bytes()


@pytest.mark.long
def test_a_vit_goes_to_8_bits_by_its_linear_weights_and_needs_torch_alone_to_run(untrained, tmp_path):
    one = untrained("test_vit")
    wanted = Wanted(to=("pt2",), int8=True)
    _, plain, quantized = export(one.network, config=one.config, wanted=wanted, folder=tmp_path)
    assert quantized.name == "pt2 int8"
    assert quantized.note == "int8 weights of linear layers, float activations: 17 % of the weights are in convolutions"
    assert 0 < quantized.max_difference < 0.05
    assert quantized.agreement >= 0.9
    assert quantized.size_mb < 0.7 * plain.size_mb
    assert b"site-packages" not in (tmp_path / quantized.file).read_bytes()
    program = (
        "import sys; sys.modules['torchao'] = None; import torch; extra = {'description.json': ''};"
        f"model = torch.export.load({str(tmp_path / quantized.file)!r}, extra_files=extra).module();"
        "print(*model(torch.zeros(5, 3, 32, 32, dtype=torch.uint8))[1].shape, 'trainable' in sys.modules);"
        "print(extra['description.json'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    shape, said = found.stdout.splitlines()
    assert shape == "5 2 False"
    assert json.loads(said)["classes"] == ["defective", "functional"]


@pytest.mark.long
@pytest.mark.parametrize("settings", [{"until": "stage3"}, {"pool": "stages"}])
@pytest.mark.parametrize("name", ["test_vit", "resnet10t"])
def test_a_network_that_ends_behind_a_stage_or_shows_several_goes_to_every_form(name, settings, untrained, tmp_path):
    one = untrained(name, model={"name": name, "weights": "random", **settings})
    rows = export(one.network, config=one.config, wanted=Wanted(to=("pt2", "onnx")), folder=tmp_path)
    assert [row.name for row in rows] == ["torch fp32", "pt2 fp32", "onnx fp32"]
    assert all(row.max_difference <= 1e-4 for row in rows)


def test_a_file_that_gives_other_logits_is_not_left_behind(untrained, tmp_path):
    class OtherWhenExported(torch.nn.Linear):
        def forward(self, features):
            return super().forward(features) + 0.01 * torch.compiler.is_exporting()

    one = untrained("test_convnext")
    one.network.head = torch.nn.Sequential(torch.nn.Identity(), OtherWhenExported(one.network.width, 2))
    with pytest.raises(UserError, match=r"--to pt2: the file's logits differ from the network's by 0\.0\d+ "):
        export(one.network, config=one.config, wanted=Wanted(to=("pt2",)), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_from_a_file_of_weights_to_rows_of_plain_values(untrained, tmp_path):
    one = untrained("test_convnext")
    weights, wanted = tmp_path / "weights.safetensors", Wanted(to=("pt2",), split="test")
    save_file(one.network.state_dict(), weights)
    given = {"weights": weights, "folder": tmp_path / "out", "wanted": wanted}
    variants = export_weights_file(one.config, classes=["defective", "functional"], **given)
    rows = [variant.as_dict() for variant in variants]
    assert rows == json.loads(json.dumps(rows))
    assert [row["name"] for row in rows] == ["torch fp32", "pt2 fp32"]
    with pytest.raises(UserError, match=r"data\.path: holds the classes defective, functional, the model a, b"):
        export_weights_file(one.config, classes=["a", "b"], **given)


def test_weights_into_which_adapters_were_taken_need_neither_them_nor_their_library(untrained, tmp_path, monkeypatch):
    one = untrained("test_convnext")
    weights = tmp_path / "weights.safetensors"
    save_file(one.network.state_dict(), weights)
    trial = one.config.model_copy(update={"finetune": FinetuneConfig(strategy="lora")})
    monkeypatch.setitem(sys.modules, "peft", None)
    images = open_images(trial, size=trial.data.image_size)
    network = load_network(trial, weights=weights, images=images)
    assert torch.equal(network.eval()(torch.ones(1, 3, 32, 32)), one.network(torch.ones(1, 3, 32, 32)))


@pytest.mark.parametrize("strategy", ["adapter", "prompt"])
def test_weights_of_adapters_that_are_served_are_loaded_with_them(strategy, untrained, tmp_path):
    one = untrained("test_vit", finetune={"strategy": strategy, "bottleneck": 4, "prompts": 3})
    light = [parameter for name, parameter in one.network.backbone.named_parameters() if name in one.network.plan.light]
    with torch.no_grad():
        for parameter in light:
            parameter.add_(0.1)
    save_file(one.network.state_dict(), tmp_path / "weights.safetensors")
    images = open_images(one.config, size=one.config.data.image_size)
    network = load_network(one.config, weights=tmp_path / "weights.safetensors", images=images).eval()
    assert torch.equal(network(torch.ones(1, 3, 32, 32)), one.network.eval()(torch.ones(1, 3, 32, 32)))


@pytest.mark.parametrize("share", [0, 1, -0.3, 30])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(UserError, match=f"--prune: {share} is not a share"):
        Wanted(prune=share)


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(
        UserError, match=r"--to: unknown format 'onxx'; did you mean 'onnx'\?; there are onnx, pt2, tensorrt"
    ):
        Wanted(to=("onxx",))


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="--split: unknown split 'valid'; there are train, val, test"):
        Wanted(split="valid")


@pytest.mark.parametrize(
    ("library", "wanted", "line"),
    [
        ("onnxruntime", {"to": ("onnx",)}, r"--to onnx needs onnxruntime: pip install 'finetune-search\[onnx\]'"),
        ("onnxscript", {"to": ("onnx",)}, r"--to onnx needs onnxscript: pip install 'finetune-search\[onnx\]'"),
        (
            "torch_pruning",
            {"to": (), "prune": 0.3},
            r"--prune needs torch_pruning: pip install 'finetune-search\[pruning\]'",
        ),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(library, wanted, line, untrained, tmp_path, monkeypatch):
    one = untrained("resnet10t")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=line):
        export(one.network, config=one.config, wanted=Wanted(**wanted), folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
