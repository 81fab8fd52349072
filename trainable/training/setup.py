"""A trial before anything moves: its device, its images, its network."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainable.config.trial import TrialConfig, used_batch_size
from trainable.data.pack import Pack
from trainable.loader.held import HeldImages, hold
from trainable.loader.rehearsal import rehearsal_count
from trainable.model.layer_plan import Depth
from trainable.model.light_adapters import keep_rows
from trainable.model.network import Network, create_network
from trainable.prefix.prefixes import Prefixes, create_prefixes
from trainable.training.device import autocast, pick_device
from trainable.training.inputs import Images, Inputs, open_images
from trainable.training.losses import prior_shift

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The ``network`` of a configuration as it begins, and what it is fed, both on ``device``."""

    config: TrialConfig
    device: torch.device
    inputs: Inputs
    network: Network

    @property
    def pack(self) -> Pack:
        """The images at their full size."""
        return self.inputs.full.pack

    @property
    def counts(self) -> Tensor:
        """Training images of each of the K classes."""
        return class_counts(self.pack)

    @property
    def shown_counts(self) -> Tensor:
        """Labelled images of each of the K classes that an epoch shows, old ones included."""
        return shown_counts(self.inputs.full, config=self.config)

    def moved(self, epoch: int) -> set[str]:
        """The parameters that have trained in the epochs up to this one."""
        return self.network.moved(self.config, until=epoch)


def set_up(config: TrialConfig) -> Setup:
    """Open the images of a trial and create its network. Raises UserError for data, weights or a device that cannot be used."""
    device = pick_device(config)
    images = open_images(config, size=config.data.image_size)
    early = None if config.data.early_size is None else open_images(config, size=config.data.early_size)
    counts = class_counts(images.pack)
    network = create_network(config, spec=images.spec, num_classes=len(counts)).to(device)
    network.shift.copy_(prior_shift(shown_counts(images, config=config), tau=config.loss.logit_adjustment))
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)
        keep_rows(network.backbone, plan=network.plan)
    batch_size = _choose_batch_size(config, num_images=int(counts.sum()))
    on_device = device.type == "cuda" and not config.augment.custom  # whose functions see images on the CPU
    inputs = Inputs(
        config=config,
        plan=network.plan,
        full=images,
        early=early,
        device=device,
        batch_size=batch_size,
        on_device=on_device,
        held=hold_images(images, early, device=device) if on_device else {},
    )
    return Setup(config=config, device=device, inputs=inputs, network=network)


def prefixes_of(setup: Setup, *, depths: Sequence[Depth] = ()) -> Prefixes:
    """What frozen layers make of a trial's images, kept for whoever looks at them next; ``depths`` are those of other trials."""
    numerics = partial(autocast, setup.device, setup.config.train)
    spec = setup.inputs.full.spec
    return create_prefixes(setup.config, network=setup.network, spec=spec, depths=depths, autocast=numerics)


def hold_images(*images: Images | None, device: torch.device) -> dict[int, HeldImages]:
    """The images on the device by their size, those that fit there."""
    held = {one.spec.size: hold(one.pack, device) for one in images if one is not None}
    return {size: one for size, one in held.items() if one is not None}


def class_counts(pack: Pack) -> Tensor:
    """Training images of each of the K classes of a pack, in its order."""
    return torch.tensor([pack.counts()["train"][name] for name in pack.classes])


def shown_counts(images: Images, *, config: TrialConfig) -> Tensor:
    """Labelled images of each of the K classes that an epoch shows: the training images, and of old ones their share."""
    new = class_counts(images.pack)
    if images.old is None:
        return new
    of_old = images.old.counts()["train"]
    old = torch.tensor([of_old.get(name, 0) for name in images.pack.classes], dtype=torch.float64)
    shown = rehearsal_count(config.data, num_new=int(new.sum()), num_old=int(old.sum()))
    return new + old * shown / old.sum().clamp(min=1)  # where it has other classes, it is refused by name


def _choose_batch_size(config: TrialConfig, *, num_images: int) -> int:
    train = config.train
    used = used_batch_size(train, num_images=num_images)
    if used < train.batch_size:
        wanted = f"for train.min_updates: {train.min_updates} in {num_images} images"
        logger.warning("train.batch_size: %d is lowered to %d, %s", train.batch_size, used, wanted)
    return used
