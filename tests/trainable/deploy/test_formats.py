"""Files of the same network give what the network gives, for any number of images."""

import numpy as np
import pytest
import torch

from trainable.deploy import onnx, pt2, tensorrt
from trainable.deploy.deployed import Deployed, describe
from trainable.errors import UserError

ARCHITECTURES = ["test_efficientnet", "test_convnext", "test_vit"]
TOLERANCE = 1e-5  # of logits around 1: float32 sums in another order


def written(one, form, folder):
    path = folder / "model"
    description = describe(one.spec, classes=("defective", "functional"))
    form.write(Deployed(one.network, spec=one.spec), path=path, description=description)
    return path


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("form", [onnx, pt2])
def test_a_file_gives_the_network_s_logits_for_1_3_and_32_images(name, form, untrained, tmp_path):
    one = untrained(name)
    predict = form.open_file(written(one, form, tmp_path))
    for count in (1, 3, 32):
        pixels = one.pixels[:count]
        expected = one.logits(pixels)
        np.testing.assert_allclose(predict(pixels), expected, atol=TOLERANCE, rtol=0)
        assert np.ptp(expected) > 100 * TOLERANCE


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_tensorrt_without_a_gpu_is_refused():
    with pytest.raises(UserError, match="--to tensorrt needs a CUDA GPU"):
        tensorrt.require()


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="TensorRT builds for the GPU of this machine, and there is none"
)
def test_an_engine_gives_the_network_s_logits(untrained, tmp_path):
    pytest.importorskip("tensorrt", reason="the extra [tensorrt] is not installed")
    one = untrained("resnet10t")
    predict = tensorrt.open_file(written(one, tensorrt, tmp_path))
    for count in (1, 3, 32):
        pixels = one.pixels[:count]
        np.testing.assert_allclose(predict(pixels), one.logits(pixels), atol=1e-4, rtol=0)
