"""What an update learns from source images with labels and target images without, by the method that a trial names."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from trainable.adapt.alignment import cdan, coral, dann, mmd
from trainable.adapt.changed_images import adversarial, fda
from trainable.adapt.confusion import mcc
from trainable.adapt.losses import ganin_strength
from trainable.adapt.seen import Classify, Seen, Terms, classified
from trainable.adapt.separate_norms import dsbn
from trainable.config import techniques
from trainable.config.trial import AdaptConfig
from trainable.data.input_spec import InputSpec
from trainable.model.network import Network
from trainable.model.stages import StageEnd


@dataclass(frozen=True)
class Method:
    """What a method does: ``terms`` gives the loss of a batch, ``pixels``, if there is one, changes source images before it."""

    terms: Callable[[Seen], Terms]
    pixels: Callable[..., Tensor] | None = None


METHODS = {
    "none": Method(classified),
    "dann": Method(dann),
    "cdan": Method(cdan),
    "mmd": Method(mmd),
    "coral": Method(coral),
    "mcc": Method(mcc),
    "adabn": Method(classified),  # its norms take the target's statistics when they are measured
    "dsbn": Method(dsbn),
    "adversarial": Method(adversarial),
    "fda": Method(classified, pixels=fda),
}


def _all_of_it(_progress: float, _config: AdaptConfig) -> float:
    return 1.0


def _rising(progress: float, config: AdaptConfig) -> float:
    return ganin_strength(progress, gamma=config.ganin_gamma)


# The share of adapt.weight at a share of the training; those of `dynamic` and `bounded`, which go by the batch, are in Seen.
WEIGHT_SCHEDULES: dict[str, Callable[[float, AdaptConfig], float]] = {
    "fixed": _all_of_it,
    "ganin": _rising,
    "dynamic": _all_of_it,
    "bounded": _all_of_it,
}


@dataclass(frozen=True)
class Adaptation:
    """A method with what it needs to know of the network: where the aligned stage ends, the range of its images."""

    config: AdaptConfig
    end: StageEnd | None
    spec: InputSpec

    @property
    def sees_target(self) -> bool:
        """Whether updates look at target images."""
        return techniques.METHODS[self.config.method].trains_on_target

    def strength(self, progress: float) -> float:
        """``adapt.weight`` by its schedule at a share of the training, what ``dynamic`` and ``bounded`` make of it aside."""
        return self.config.weight * WEIGHT_SCHEDULES[self.config.schedule](progress, self.config)

    def swapped(self, images: Tensor, others: Tensor, *, progress: float, seed: tuple[int, ...]) -> Tensor:
        """Pixels N×C×S×S of the source as the method changes them by those of the target; float32 or as given."""
        change = METHODS[self.config.method].pixels
        if change is None:
            return images
        return change(images, others, config=self.config, strength=self.strength(progress), seed=seed)

    def terms(
        self,
        network: Network,
        *,
        images: Tensor,
        others: Tensor,
        classify: Classify,
        progress: float,
        autocast: AbstractContextManager[object],
    ) -> Terms:
        """The terms of a batch of normalised images N×C×S×S, M×C×S×S of the target; ``classify`` is the loss of logits N×K."""
        seen = Seen(
            config=self.config,
            spec=self.spec,
            end=self.end,
            network=network,
            images=images,
            others=others,
            classify=classify,
            strength=self.strength(progress),
            autocast=autocast,
        )
        return METHODS[self.config.method].terms(seen)
