"""How good the networks of a trial are on its images."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from trainable.config.techniques import METHODS
from trainable.config.trial import TrialConfig
from trainable.loader.symmetries import Symmetry, turned
from trainable.model.network import Network
from trainable.model.norms import recompute_batch_norm, target_statistics
from trainable.model.phase import Phase, phase
from trainable.prefix.prefixes import Prefixes
from trainable.statistics.calibration import overconfidence
from trainable.statistics.scores import Evaluation, score
from trainable.statistics.selectors import Outputs, selectors
from trainable.training.device import autocast
from trainable.training.evaluate import Predicted, predict
from trainable.training.inputs import Inputs

IMAGES_OF_DENSITY = 256  # training images of each domain by which selectors weigh the validation images


@dataclass(frozen=True, kw_only=True)
class Measurer:
    """Measures networks of a trial, as an epoch leaves them; which epoch says what size its images have.

    With ``prefixes`` what frozen layers make of the images is computed once for all that look at it; ``frozen_as`` is the phase
    that says which those are, where it is not the epoch's.
    """

    config: TrialConfig
    inputs: Inputs
    prefixes: Prefixes | None = None
    frozen_as: Phase | None = None

    def measure(
        self, network: Network, *, epoch: int, trained: Network | None = None
    ) -> tuple[Evaluation, dict[str, float]]:
        """Validation scores, and all that an epoch is judged by under full names: those and the selectors of the target.

        ``trained`` is the network in training where ``network`` is its running average.
        """
        if self.config.data.target is None:
            evaluation = self.evaluate(network, "val", epoch=epoch)
            return evaluation, evaluation.named("val")
        if self._adapts_norms:
            self._adapt_norms(network, epoch=epoch, trained=trained)
        source = self.predict(network, "val", epoch=epoch)
        evaluation = self._score(source)
        return evaluation, evaluation.named("val") | self._target_metrics(network, source=source, epoch=epoch)

    @property
    def num_measured(self) -> int:
        """Images that :meth:`measure` looks at."""
        pack = self.inputs.full.pack
        splits = {split: len(pack.indices(split)) for split in ("train", "val", "target", "target_val")}
        if self.config.data.target is None:
            return splits["val"]
        density = sum(min(IMAGES_OF_DENSITY, splits[split]) for split in ("train", "target"))
        adapting = splits["target"] if self._adapts_norms else 0
        return splits["val"] + splits["target_val"] + density + adapting

    def evaluate(self, network: Network, split: str, *, epoch: int) -> Evaluation:
        """Scores on a split that has labels."""
        return self._score(self.predict(network, split, epoch=epoch))

    def predict(
        self, network: Network, split: str, *, epoch: int, limit: int | None = None, view: Symmetry | None = None
    ) -> Predicted:
        """Outputs for a split, or for its first ``limit`` images or few more; each domain by its own norms.

        With ``view`` the images are flipped and turned so.
        """
        network.eval()
        domain = target_statistics(network) if split.startswith("target") else nullcontext()
        links = 0 if view is not None else self._links(network, epoch=epoch)
        with domain, self._batches(network, split, links=links, epoch=epoch, limit=limit) as batches:
            shown = batches if view is None else ((turned(images, view), labels) for images, labels in batches)
            return predict(network, batches=shown, autocast=autocast(self.inputs.device, self.config.train))

    def logits(self, network: Network, split: str, *, epoch: int) -> Iterator[Tensor]:
        """Logits of a split's batches."""
        network.eval()
        with self._batches(network, split, links=self._links(network, epoch=epoch), epoch=epoch) as batches:
            for images, _ in batches:
                with torch.inference_mode(), autocast(self.inputs.device, self.config.train):
                    yield network(images)

    def take_statistics(self, network: Network, *, epoch: int, limit: int) -> None:
        """Give the batch norms that move the statistics of the first ``limit`` training images, or few more, unvaried."""
        network.eval()

        def shown() -> Iterator[Tensor]:  # looked at only where there are such norms
            links = self._links(network, epoch=epoch)
            with self._batches(network, "train", links=links, epoch=epoch, limit=limit) as batches:
                yield from (images for images, _ in batches)

        recompute_batch_norm(network, shown())

    def take_target_statistics(self, network: Network, *, epoch: int, every: bool) -> None:
        """Give the batch norms, or those that move, the statistics of the target's training images (AdaBN, Li et al. 2018)."""
        network.eval()
        links = 0 if every else self._links(network, epoch=epoch)
        with target_statistics(network), self._batches(network, "target", links=links, epoch=epoch) as batches:
            recompute_batch_norm(network, (images for images, _ in batches), every=every)

    @property
    def _adapts_norms(self) -> bool:
        return METHODS[self.config.adapt.method].target_norms == "when measured"

    def _adapt_norms(self, network: Network, *, epoch: int, trained: Network | None) -> None:
        """Take the target's statistics anew: those of resting norms in the first epoch at an image size, which then stay."""
        first = epoch in (1, self.config.data.early_epochs + 1)
        if first and trained is not None and trained is not network:
            self.take_target_statistics(trained, epoch=epoch, every=True)
        self.take_target_statistics(network, epoch=epoch, every=first)

    def _target_metrics(self, network: Network, *, source: Predicted, epoch: int) -> dict[str, float]:
        """Selectors of the target; only an oracle's run looks at its labels."""
        target = self.predict(network, "target_val", epoch=epoch)
        scores = selectors(
            Outputs(target.features, target.probabilities),
            source=Outputs(source.features, source.probabilities),
            source_labels=source.labels,
            target_train=self.predict(network, "target", epoch=epoch, limit=IMAGES_OF_DENSITY).features,
            source_train=self.predict(network, "train", epoch=epoch, limit=IMAGES_OF_DENSITY).features,
            seed=self.config.seed,
        )
        metrics = {f"target/{name}": value for name, value in scores.items()}
        metrics["target/overconfidence"] = overconfidence(
            target.probabilities, of_source=source.probabilities, labels=source.labels
        )
        if self.config.data.oracle:
            metrics |= self._score(target).named("oracle")
        return metrics

    def _score(self, predicted: Predicted) -> Evaluation:
        return score(predicted.probabilities, labels=predicted.labels, classes=self.inputs.full.pack.classes)

    def _links(self, network: Network, *, epoch: int) -> int:
        """How many links of this epoch's networks rest, behind which they are measured; 0 where they look at the images anew."""
        if self.prefixes is None or network.views:
            return 0
        return self.prefixes.links(self.frozen_as or phase(self.config, plan=network.plan, epoch=epoch))

    @contextmanager
    def _batches(
        self, network: Network, split: str, *, links: int, epoch: int, limit: int | None = None
    ) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """A split as the network takes it inside: images, or what its first links, as they are now, make of them; and labels."""
        if not links or self.prefixes is None:
            yield self.inputs.split(split, epoch=epoch, limit=limit)
            return
        viewed = self.inputs.viewed(split, epoch=epoch, view=None, limit=limit)
        behind = self.prefixes.open(network, links=links, viewed=viewed)
        with network.beginning_behind(links, chain=self.prefixes.chain):
            yield self.inputs.split(split, epoch=epoch, behind=behind, limit=limit)
