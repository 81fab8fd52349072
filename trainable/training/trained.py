"""A network that has been trained, from where its weights lie to what it makes of images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from trainable.atomic import write_beside
from trainable.config.trial import TrialConfig
from trainable.errors import UserError
from trainable.model.light_adapters import as_served, plain_state
from trainable.model.network import Network
from trainable.model.norms import target_statistics
from trainable.model.phase import STRATEGIES
from trainable.statistics.scores import Evaluation
from trainable.training.checkpoint import load_scored, read_state
from trainable.training.evaluate import Predicted
from trainable.training.finishing import Finish, StepName, find_finish
from trainable.training.measure import Measurer
from trainable.training.setup import Setup, prefixes_of, set_up


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The network of a ``checkpoint`` of this configuration, or of the ``soup`` of trials like it; as ``finish`` makes it."""

    config: TrialConfig
    checkpoint: Path | None = None
    soup: Path | None = None
    finish: Finish = field(default_factory=Finish)

    def open(self) -> tuple[Setup, int]:
        """The network with its images, and the epoch that it is of; raises UserError, BrokenCheckpointError."""
        if self.soup is not None:
            setup, epoch = set_up(as_served(self.config)), self.config.train.epochs
            setup.network.load_state_dict(load_file(self.soup))
        else:
            assert self.checkpoint is not None
            setup, epoch = set_up(self.config), read_state(self.checkpoint)["epoch"]
            load_scored(self.checkpoint, network=setup.network, moved=setup.moved)
        self.finish.apply(setup)
        return setup, epoch

    def predict(self, split: str, *, as_measured: bool = False) -> Predicted:
        """What it makes of ``split``; ``as_measured`` as its epochs were, from what is kept of frozen layers."""
        return self.answers(split, as_measured=as_measured)[1]

    def answers(self, split: str, *, as_measured: bool = False) -> tuple[Setup, Predicted]:
        """:meth:`predict`, with the network and images that it is of: ``split`` is in the order of the pack's indices."""
        setup, epoch = self.open()
        prefixes = prefixes_of(setup) if as_measured else None
        measurer = Measurer(config=setup.config, inputs=setup.inputs, prefixes=prefixes)
        return setup, measurer.predict(setup.network, split, epoch=epoch)

    def score(self, split: str) -> Evaluation:
        """Scores on ``split``."""
        setup, epoch = self.open()
        return Measurer(config=setup.config, inputs=setup.inputs).evaluate(setup.network, split, epoch=epoch)

    def find_finish(self, steps: Sequence[StepName]) -> Finish:
        """Which of these steps help it on validation images."""
        setup, epoch = self.open()
        measurer = Measurer(config=setup.config, inputs=setup.inputs, prefixes=prefixes_of(setup))
        return find_finish(setup, measurer=measurer, steps=steps, epoch=epoch)


def export_weights(config: TrialConfig, *, checkpoint: Path, path: Path) -> None:
    """Write the whole network of a checkpoint as one safetensors file, which ``model.weights`` takes to go on from.

    Raises UserError where adapters or prompts that cannot be taken into its layers are part of it.
    """
    if STRATEGIES[config.finetune.strategy].served:
        raise UserError(
            f"finetune.strategy: a network of {config.finetune.strategy!r} has parts that timm's has not, which model.weights "
            "cannot take; go on from its checkpoint"
        )
    setup, _ = Trained(config=config, checkpoint=checkpoint).open()
    with write_beside(path) as file:
        file.write(save(network_state(setup.network)))


def network_state(network: Network) -> dict[str, Tensor]:
    """What a network needs to be used, by name: nothing that was beside it in training, and the target's statistics.

    Light adapters are taken into the layers they are in where they can be.
    """
    with target_statistics(network):  # what was adapted is for the target
        state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in plain_state(network).items()}
    return {name: state[name] for name in state if not name.startswith("adapter.") and ".target_" not in name}
