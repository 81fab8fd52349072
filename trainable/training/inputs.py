"""What a trial's network is fed: images of the epoch's size on the device, in the epoch's order."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainable.adapt.methods import Adaptation
from trainable.config.techniques import ClassSamplingName
from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack
from trainable.loader.batches import (
    Batch,
    Loader,
    Rows,
    evaluation_loader,
    normalise,
    num_batches,
    target_loader,
    train_loader,
)
from trainable.loader.held import HeldImages
from trainable.loader.joined import Joined
from trainable.loader.mixing import mix
from trainable.loader.rehearsal import open_old, rehearsal_count
from trainable.loader.unlabelled import Unlabelled, open_beside
from trainable.loader.views import evaluation_views, varies, views
from trainable.model.backbone import input_spec
from trainable.model.layer_plan import LayerPlan
from trainable.model.phase import phase
from trainable.prefix.key import View
from trainable.prefix.outputs import Outputs
from trainable.prefix.prefixes import Viewed


class Shown(NamedTuple):
    """What a forward pass sees: images N×C×S×S, labels N or targets N×K, and ``others``, images of the target domain."""

    images: Tensor
    targets: Tensor
    others: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images at one size, with the old ones to rehearse, or with unlabelled ones that teachers answer for."""

    pack: Pack
    spec: InputSpec
    old: Pack | None
    unlabelled: Unlabelled | None


def open_images(config: TrialConfig, *, size: int | None) -> Images:
    """The trial's images with ``size`` pixels a side. Raises UserError for data that cannot be used."""
    spec = input_spec(config.model, image_size=size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    beside = open_beside(config, spec, pack=pack)
    return Images(pack=pack, spec=spec, old=open_old(config.data, spec), unlabelled=beside)


@dataclass(kw_only=True)
class Inputs:
    """Batches of a trial. ``early`` are the images of its first epochs, where those are smaller.

    With ``on_device`` views are made on the device as they are asked for, from the images ``held`` there by size or else from
    the pack; without, by the loaders, whose processes make them ahead. ``soft_targets``, N×K by row of the pack and, after it, of
    the unlabelled one, stand in the place of labels in training.
    """

    config: TrialConfig
    plan: LayerPlan
    full: Images
    early: Images | None
    device: torch.device
    batch_size: int
    on_device: bool = False
    held: Mapping[int, HeldImages] = field(default_factory=dict)
    loaders: dict[tuple[str, int], Loader] = field(default_factory=dict)
    soft_targets: Tensor | None = None

    def at(self, epoch: int) -> Images:
        """The images that an epoch looks at."""
        return self.early if self.early is not None and epoch <= self.config.data.early_epochs else self.full

    @cached_property
    def num_images(self) -> int:
        """Images of an epoch: labelled ones, old ones to rehearse, unlabelled ones."""
        labelled, unlabelled = len(self.full.pack.indices("train")), self.full.unlabelled
        return labelled + self._num_old() + (0 if unlabelled is None else unlabelled.count(labelled))

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch's training."""
        return num_batches(self.num_images, batch_size=self.batch_size)

    def split(
        self, split: str, *, epoch: int, behind: Outputs | None = None, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A split as evaluation sees it, and labels: normalised images, or what the layers before made of them.

        Of its batches those that hold the first ``limit`` images, all without one.
        """
        images, count = self.at(epoch), self._batches_for(limit)
        loader = self._evaluation_loader(split, images=images)
        if behind is not None:
            yield from self._behind(behind, loader.requests(epoch)[:count], pack=images.pack)
            return
        for batch in itertools.islice(self._batches(loader, images=images, epoch=epoch, view=None), count):
            yield self.normalised(batch.images, spec=images.spec), self._moved(batch.labels)

    def training(
        self, *, epoch: int, view: int, adaptation: Adaptation, behind: Mapping[str, Outputs] | None = None
    ) -> Iterator[Shown]:
        """An epoch's batches: normalised images, labels or targets, images of the target domain if it is looked at.

        ``view`` is the number of that in which they are seen. With ``behind``, by split, what frozen layers made of the images
        stands in their place.
        """
        if behind is not None:
            shown = self._training_behind(behind, epoch=epoch)
        else:
            shown = self._training_on_images(epoch=epoch, view=view, adaptation=adaptation)
        if self.soft_targets is None:
            yield from shown
            return
        for rows, batch in zip(self._loader("train", epoch=epoch).requests(epoch), shown, strict=True):
            yield batch._replace(targets=self._moved(self.soft_targets[rows]))

    def _training_on_images(self, *, epoch: int, view: int, adaptation: Adaptation) -> Iterator[Shown]:
        images = self.at(epoch)
        batches = self._batches(self._loader("train", epoch=epoch), images=images, epoch=epoch, view=view)
        if not adaptation.sees_target:
            others: Iterator[Tensor | None] = itertools.repeat(None)
        else:  # whose labels, if any, go nowhere
            loader = self._loader("target", epoch=epoch)
            others = (batch.images for batch in self._batches(loader, images=images, epoch=epoch, view=view))
        for index, (batch, other) in enumerate(zip(batches, others, strict=False)):
            pixels, labels = self._moved(batch.images), self._moved(batch.labels)
            of_target = None if other is None else self._moved(other)
            yield self._prepared(pixels, labels, of_target, epoch=epoch, step=index, adaptation=adaptation)

    def viewed(self, split: str, *, epoch: int, view: int | None, limit: int | None = None) -> Viewed:
        """The images of a split as an epoch looks at them, in a view of training or as evaluation does; as many as there."""
        images, varied = self.at(epoch), self._view(view)
        rows = images.pack.indices(split)
        if limit is not None:
            requests = self._evaluation_loader(split, images=images).requests(epoch)
            rows = np.concatenate(requests[: self._batches_for(limit)])
        return Viewed(
            pack=images.pack,
            rows=rows,
            spec=images.spec,
            view=varied,
            images=partial(self._images, images=images, view=varied),
        )

    def _batches_for(self, limit: int | None) -> int | None:
        return None if limit is None else num_batches(limit, batch_size=self.batch_size)

    def _view(self, number: int | None) -> View | None:
        config = self.config
        varied = number is not None and varies(config.augment, channels=config.data.channels)
        return View(config.augment, config.seed, number) if varied and number is not None else None

    def _batches(self, loader: Loader, *, images: Images, epoch: int, view: int | None) -> Iterator[Batch]:
        """The batches of a loader's epoch, made by it or, from the same rows, on the device."""
        if not self.on_device:
            yield from loader.epoch(epoch, view=view)
            return
        for rows in loader.requests(epoch):
            pixels = self._pixels(rows, pack=loader.pack, images=images, view=self._view(view))
            yield Batch(pixels, torch.from_numpy(loader.pack.labels[rows]))

    def _images(self, rows: Rows, *, images: Images, view: View | None) -> Tensor:
        return self.normalised(self._pixels(rows, pack=images.pack, images=images, view=view), spec=images.spec)

    def _pixels(self, rows: Rows, *, pack: Pack | Joined, images: Images, view: View | None) -> Tensor:
        """The rows of a pack as a view shows them, N×C×S×S uint8 on the device."""
        held = self.held.get(images.spec.size) if pack is images.pack else None
        shown = [pack.image(row) if held is None else held.image(row) for row in rows.tolist()]
        if view is None:
            return evaluation_views(shown, images.spec, device=self.device)
        return views(
            shown,
            config=view.augment,
            spec=images.spec,
            seed=view.seed,
            sample_ids=pack.sample_ids[rows],
            number=view.number,
            device=self.device,
        )

    def _training_behind(self, behind: Mapping[str, Outputs], *, epoch: int) -> Iterator[Shown]:
        pack = self.at(epoch).pack
        batches = self._behind(behind["train"], self._loader("train", epoch=epoch).requests(epoch), pack=pack)
        others: Iterator[Tensor | None] = itertools.repeat(None)
        if "target" in behind:
            requests = self._loader("target", epoch=epoch).requests(epoch)
            others = (outputs for outputs, _ in self._behind(behind["target"], requests, pack=pack))
        for (outputs, labels), other in zip(batches, others, strict=False):
            yield Shown(outputs, labels, other)

    def _behind(self, outputs: Outputs, requests: list[Rows], *, pack: Pack) -> Iterator[tuple[Tensor, Tensor]]:
        for rows, values in zip(requests, outputs.batches(requests), strict=True):
            yield self._moved(values), self._moved(torch.from_numpy(pack.labels[rows]))

    def normalised(self, pixels: Tensor, *, spec: InputSpec) -> Tensor:
        """Pixels N×C×S×S on the device as the network takes them."""
        images = normalise(self._moved(pixels), spec)
        return images.contiguous(memory_format=torch.channels_last) if self.config.train.channels_last else images

    def _prepared(
        self, pixels: Tensor, labels: Tensor, others: Tensor | None, *, epoch: int, step: int, adaptation: Adaptation
    ) -> Shown:
        config, spec = self.config, self.at(epoch).spec
        if others is not None:
            progress = (epoch - 1) / config.train.epochs
            pixels = adaptation.swapped(pixels, others, progress=progress, seed=(config.seed, epoch, step))
        images, targets = mix(
            self.normalised(pixels, spec=spec),
            labels,
            config=config.augment,
            num_classes=len(self.full.pack.classes),
            seed=config.seed,
            epoch=epoch,
            step=step,
        )
        return Shown(images, targets, None if others is None else self.normalised(others, spec=spec))

    def _evaluation_loader(self, split: str, *, images: Images) -> Loader:
        key = (f"evaluation of {split}", images.spec.size)
        if key not in self.loaders:
            few = self.config.data.target is not None and split not in (
                "val",
                "test",
            )  # not worth processes of their own
            workers = 0 if few else self.config.data.workers
            self.loaders[key] = evaluation_loader(
                images.pack, split, spec=images.spec, batch_size=self.batch_size, workers=workers
            )
        return self.loaders[key]

    def _loader(self, split: str, *, epoch: int) -> Loader:
        """The training loader of a domain, which lives on for its worker processes."""
        images = self.at(epoch)
        key = (f"training on {split}", images.spec.size)
        if key not in self.loaders:
            self.loaders[key] = self._new_loader(split, images=images)
        return self.loaders[key]

    def _new_loader(self, split: str, *, images: Images) -> Loader:
        shared: dict[str, Any] = {
            "augment": self.config.augment,
            "spec": images.spec,
            "batch_size": self.batch_size,
            "seed": self.config.seed,
            "workers": self.config.data.workers,
            "pin": self.device.type == "cuda",
        }
        if split == "target":
            return target_loader(images.pack, count=self.num_images, **shared)
        shared |= {"old": images.old, "num_old": self._num_old(), "unlabelled": images.unlabelled}
        return train_loader(images.pack, sampler=self._sampler, **shared)

    def _sampler(self, epoch: int) -> ClassSamplingName:
        balanced = phase(self.config, plan=self.plan, epoch=epoch).balanced
        return "balanced" if balanced else self.config.data.class_sampling

    def _num_old(self) -> int:
        if self.full.old is None:
            return 0
        num_new, num_old = len(self.full.pack.indices("train")), len(self.full.old.indices("train"))
        return rehearsal_count(self.config.data, num_new=num_new, num_old=num_old)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)
