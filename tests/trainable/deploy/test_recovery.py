import torch

from trainable.deploy.pruning import prune
from trainable.deploy.recovery import Recovery, recover


def test_training_after_pruning_moves_every_layer_and_is_the_same_again(untrained):
    one = untrained("resnet10t", freeze={"depth": 1.0})

    def once():
        smaller = prune(one.network, share=0.5, spec=one.spec, name="resnet10t")
        before = {name: tensor.clone() for name, tensor in smaller.state_dict().items()}
        return before, recover(smaller, config=one.config, recovery=Recovery(epochs=1)).state_dict()

    before, after = once()
    _, again = once()
    assert all(torch.equal(after[name], again[name]) for name in after)
    assert torch.equal(before["shift"], after["shift"])  # the trained network's own
    trains = [name for name in after if name.endswith(("conv1.weight", "running_mean"))]
    assert trains
    assert not any(torch.equal(before[name], after[name]) for name in trains)
