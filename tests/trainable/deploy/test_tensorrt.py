"""What a format asks of the machine."""

import pytest
import torch

from trainable.deploy import tensorrt
from trainable.errors import UserError


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_tensorrt_without_a_gpu_is_refused():
    with pytest.raises(UserError, match="--to tensorrt needs a CUDA GPU"):
        tensorrt.require()
