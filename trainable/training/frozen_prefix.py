"""Which frozen layers of a trial are computed once for all trials."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainable.config.techniques import METHODS
from trainable.config.trial import TrialConfig, store_bytes
from trainable.data.pack import cache_folder
from trainable.loader.batches import Rows
from trainable.loader.mixing import mixes
from trainable.loader.views import evaluation_view, varies, views
from trainable.model.network import Network
from trainable.model.phase import Phase
from trainable.model.prefix_cut import Cut, find_cut, prefix_output
from trainable.model.stages import StageEnd
from trainable.training.device import autocast
from trainable.training.inputs import Images, Inputs
from trainable.training.prefix_store import PrefixStore, Stored, TrainingView, fits, view_key

FOLDER = "prefix"
NUM_EXAMPLES = 3  # what a cut is tried on


@dataclass(kw_only=True)
class Prefixes:
    """The cuts of a trial's networks, and the store of what lies before them."""

    config: TrialConfig
    inputs: Inputs
    store: PrefixStore
    limit_bytes: int
    cuts: dict[tuple[frozenset[int], int], Cut | None] = field(default_factory=dict)

    def cut(self, network: Network, *, phase: Phase, epoch: int) -> Cut | None:
        """Behind which frozen layers ``network`` can begin in an epoch of ``phase``; None where it should not.

        A function of the configuration and the data: nothing is stored in which anything moves, nor what would be too many
        bytes.
        """
        if phase.moving_norms or phase.within != "nothing":
            return None
        images = self.inputs.at(epoch)
        key = (phase.frozen, images.spec.size)
        if key not in self.cuts:
            self.cuts[key] = self._try_cut(network, phase=phase, images=images)
        cut, num_images = self.cuts[key], max(len(images.pack.indices(split)) for split in ("train", "target"))
        return cut if cut is not None and fits(num_images, shape=cut.shape, limit_bytes=self.limit_bytes) else None

    def training_cut(self, network: Network, *, phase: Phase, epoch: int, end: StageEnd | None) -> Cut | None:
        """Behind which frozen layers an epoch's training can begin; None where it should not, or asks for whole images.

        It does where images are mixed, moved by their gradient, joined by old ones or varied by the user's own code, which
        may change, and where a stage is to be aligned whose ``end`` is frozen.
        """
        augment, method = self.config.augment, METHODS[self.config.adapt.method]
        is_hidden = end is not None and set(range(end.unit + 1)) <= phase.frozen
        rehearses = self.config.data.rehearsal is not None
        if mixes(augment, epoch=epoch) or is_hidden or augment.custom or method.changes_images or rehearses:
            return None
        return self.cut(network, phase=phase, epoch=epoch)

    def open_evaluation(self, split: str, *, network: Network, cut: Cut, epoch: int) -> Stored:
        """What the prefix of a network, as it is now, makes of a split's evaluation views."""
        return self._open(split, network=network, cut=cut, epoch=epoch, view=None)

    def open_training(self, splits: Sequence[str], *, network: Network, cut: Cut, epoch: int) -> dict[str, Stored]:
        """What it makes of the images of an epoch's training, by split."""
        augment = self.config.augment
        view = (
            TrainingView(augment, self.config.seed, epoch)
            if varies(augment, channels=self.config.data.channels)
            else None
        )
        return {split: self._open(split, network=network, cut=cut, epoch=epoch, view=view) for split in splits}

    def _try_cut(self, network: Network, *, phase: Phase, images: Images) -> Cut | None:
        example = self._images(images.pack.indices("train")[:NUM_EXAMPLES], images=images, view=None)
        training = network.training
        with autocast(self.inputs.device, self.config.train):
            cut = find_cut(network.train().backbone, plan=network.plan, frozen=phase.frozen, images=example)
        network.train(training)
        return cut

    def _open(self, split: str, *, network: Network, cut: Cut, epoch: int, view: TrainingView | None) -> Stored:
        images = self.inputs.at(epoch)

        def compute(rows: Rows) -> Tensor:
            with autocast(self.inputs.device, self.config.train):
                return prefix_output(network.backbone, self._images(rows, images=images, view=view), cut=cut)

        key = view_key(
            network.backbone,
            cut=cut,
            architecture=self.config.model.name,
            spec=images.spec,
            pack=images.pack,
            train=self.config.train,
            view=view,
        )
        return self.store.open(key, rows=images.pack.indices(split), shape=cut.shape, compute=compute)

    def _images(self, rows: Rows, *, images: Images, view: TrainingView | None) -> Tensor:
        """Normalised images N×C×S×S of these rows, in the evaluation view or as an epoch of training varies them."""
        pack, spec = images.pack, images.spec
        if view is None:
            pixels = torch.stack([evaluation_view(pack.image(row), spec) for row in rows])
        else:
            pixels = views(
                map(pack.image, rows),
                config=view.augment,
                spec=spec,
                seed=view.seed,
                sample_ids=pack.sample_ids[rows],
                epoch=view.epoch,
            )
        return self.inputs.normalised(pixels, spec=spec)


def create_prefixes(config: TrialConfig, *, inputs: Inputs) -> Prefixes | None:
    """The store that ``data.prefix_gb`` asks for, beside the decoded images; None for none."""
    limit = store_bytes(config.data)
    if not limit:
        return None
    return Prefixes(
        config=config,
        inputs=inputs,
        store=PrefixStore(cache_folder(config.data) / FOLDER, limit_bytes=limit),
        limit_bytes=limit,
    )
