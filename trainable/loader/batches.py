"""Hands the images of a pack to training and evaluation in batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainable.config.techniques import ClassSamplingName
from trainable.config.trial import AugmentConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack
from trainable.loader.joined import Joined
from trainable.loader.rehearsal import join_old, rehearsed
from trainable.loader.unlabelled import Unlabelled, with_unlabelled
from trainable.loader.views import evaluation_views, views
from trainable.randomness import generator

BETA = 0.999  # of the effective number of images, (1-β^n)/(1-β) (Cui et al. 2019)

Rows = NDArray[np.int64]


class Batch(NamedTuple):
    """Images N×C×S×S uint8 and labels N int64."""

    images: Tensor
    labels: Tensor


class OfPack(Protocol):
    """A data set of batches that shows the images of a ``pack``."""

    @property
    def pack(self) -> Pack | Joined:
        """Where the rows of its requests are found."""
        ...

    def __getitem__(self, request: tuple[int, Rows]) -> Batch: ...


class Loader:
    """The batches of one epoch after the other; its worker processes, if any, live as long as it does.

    The batches are the same bit for bit whatever ``workers`` is, and nothing is drawn from a global generator.
    """

    def __init__(
        self,
        dataset: "OfPack",
        *,
        rows_of: Callable[[int], Rows],
        batch_size: int,
        workers: int,
        pin: bool,
    ) -> None:
        self.pack = dataset.pack
        self._requests = _Requests(rows_of, batch_size=batch_size)
        self._loader: DataLoader[Batch] = DataLoader(
            cast(Dataset[Batch], dataset),
            batch_size=None,  # a request is a whole batch
            sampler=self._requests,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,  # a fork would copy the trial's threads and CUDA
            generator=torch.Generator(),
            pin_memory=pin,
        )

    def epoch(self, number: int, *, view: int | None = None) -> Iterator[Batch]:
        """The batches of this epoch, varied by this ``view``, else its own; ends those of one not read to its end."""
        self._requests.epoch, self._requests.view = number, number if view is None else view
        return iter(self._loader)

    def requests(self, number: int) -> list[Rows]:
        """The rows of each batch of this epoch."""
        return self._requests.of(number)


def train_loader(
    pack: Pack,
    *,
    augment: AugmentConfig,
    spec: InputSpec,
    batch_size: int,
    seed: int,
    sampler: Callable[[int], ClassSamplingName] = lambda _epoch: "shuffle",
    old: Pack | None = None,
    num_old: int = 0,
    unlabelled: Unlabelled | None = None,
    workers: int = 0,
    pin: bool = False,
) -> Loader:
    """The varied training images in an order of each epoch's own.

    The last batch may be short. ``sampler`` says how an epoch draws them (``data.class_sampling``); ``num_old`` training
    images of ``old`` are among them, or ``unlabelled`` ones, which have the label -1; their numbers follow those of ``pack``.
    """
    rows = pack.indices("train")
    labels = pack.labels[rows]
    shown: Pack | Joined = pack
    if old is not None:
        shown = join_old(pack, old)
    elif unlabelled is not None:
        shown = Joined(pack, unlabelled.pack, labels=np.full(len(unlabelled.pack), -1))

    def rows_of(epoch: int) -> Rows:
        new_rows = rows[_drawn(labels, sampler=sampler(epoch), seed=seed, epoch=epoch)]
        if old is not None:
            return rehearsed(new_rows, old_rows=len(pack) + old.indices("train"), count=num_old, seed=seed, epoch=epoch)
        if unlabelled is not None:
            among, count = len(pack) + unlabelled.rows, unlabelled.count(len(new_rows))
            return with_unlabelled(new_rows, among=among, count=count, seed=seed, epoch=epoch)
        return new_rows

    return Loader(
        _TrainingViews(pack=shown, augment=augment, spec=spec, seed=seed),
        rows_of=rows_of,
        batch_size=batch_size,
        workers=workers,
        pin=pin,
    )


def target_loader(
    pack: Pack,
    *,
    augment: AugmentConfig,
    spec: InputSpec,
    batch_size: int,
    seed: int,
    count: int,
    workers: int = 0,
    pin: bool = False,
) -> Loader:
    """The varied images of the target domain, beside ``count`` source images an epoch.

    They come in batches of the same sizes. Each comes as often as any other, give or take once. Their labels mean nothing.
    """
    rows = pack.indices("target")

    def rows_of(epoch: int) -> Rows:
        rounds = range(-(-count // len(rows)))
        orders = [
            torch.randperm(len(rows), generator=generator(seed, "target order", epoch, number)) for number in rounds
        ]
        chosen: Rows = rows[torch.cat(orders)[:count].numpy()]
        return chosen

    dataset = _TrainingViews(pack=pack, augment=augment, spec=spec, seed=seed)
    return Loader(dataset, rows_of=rows_of, batch_size=batch_size, workers=workers, pin=pin)


def evaluation_loader(
    pack: Pack,
    split: str,
    *,
    spec: InputSpec,
    batch_size: int,
    rows: Rows | None = None,
    workers: int = 0,
    pin: bool = False,
) -> Loader:
    """The evaluation views of a split, or of these ``rows`` of the pack, in the pack's order, whatever the epoch."""
    rows = pack.indices(split) if rows is None else rows
    return Loader(
        _EvaluationViews(pack, spec), rows_of=lambda _epoch: rows, batch_size=batch_size, workers=workers, pin=pin
    )


def evaluation_batches(
    pack: Pack,
    split: str,
    *,
    spec: InputSpec,
    batch_size: int,
    rows: Rows | None = None,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """One pass of :func:`evaluation_loader`; starts the workers anew each time."""
    loader = evaluation_loader(pack, split, spec=spec, batch_size=batch_size, rows=rows, workers=workers, pin=pin)
    return loader.epoch(0)


def num_batches(num_images: int, *, batch_size: int) -> int:
    """Batches an epoch has, the short one counted.

    A single image left over joins the batch before it: batch norm cannot train on one.
    """
    whole, rest = divmod(num_images, batch_size)
    return max(1, whole) if rest <= 1 else whole + 1


def normalise(images: Tensor, spec: InputSpec) -> Tensor:
    """N×C×S×S uint8 images as float32 of ``spec``'s mean and deviation, on the device they are on."""
    mean, std = (  # without making a GPU wait
        (255 * torch.tensor(values)).to(images.device, non_blocking=True).view(-1, 1, 1)
        for values in (spec.mean, spec.std)
    )
    return images.float().sub_(mean).div_(std)


@dataclass(frozen=True, kw_only=True)
class _TrainingViews(Dataset[Batch]):
    pack: Pack | Joined
    augment: AugmentConfig
    spec: InputSpec
    seed: int

    def __getitem__(self, request: tuple[int, Rows]) -> Batch:
        number, rows = request
        images = views(
            map(self.pack.image, rows),
            config=self.augment,
            spec=self.spec,
            seed=self.seed,
            sample_ids=self.pack.sample_ids[rows],
            number=number,
        )
        return Batch(images, torch.from_numpy(self.pack.labels[rows]))


@dataclass(frozen=True)
class _EvaluationViews(Dataset[Batch]):
    pack: Pack
    spec: InputSpec

    def __getitem__(self, request: tuple[int, Rows]) -> Batch:
        _, rows = request
        images = evaluation_views([self.pack.image(row) for row in rows], self.spec)
        return Batch(images, torch.from_numpy(self.pack.labels[rows]))


class _Requests:
    """What a data loader asks for: (view, rows of one batch)."""

    def __init__(self, rows_of: Callable[[int], Rows], *, batch_size: int) -> None:
        self.rows_of, self.batch_size, self.epoch, self.view = rows_of, batch_size, 0, 0

    def __iter__(self) -> Iterator[tuple[int, Rows]]:
        view = self.view
        return iter([(view, rows) for rows in self.of(self.epoch)])

    def __len__(self) -> int:
        return len(self.of(self.epoch))

    def of(self, epoch: int) -> list[Rows]:
        rows = self.rows_of(epoch)
        bounds = [index * self.batch_size for index in range(num_batches(len(rows), batch_size=self.batch_size))]
        return [rows[start:end] for start, end in pairwise([*bounds, len(rows)])]


def _drawn(labels: NDArray[np.int64], *, sampler: ClassSamplingName, seed: int, epoch: int) -> Rows:
    """Positions N of an epoch's images among the N labels: each once, or drawn with replacement."""
    randomness = generator(seed, "order", epoch)
    if sampler == "shuffle":
        order: Rows = torch.randperm(len(labels), generator=randomness).numpy()
        return order
    weights = torch.from_numpy(image_weights(labels, sampler=sampler))
    drawn: Rows = torch.multinomial(weights, len(labels), replacement=True, generator=randomness).numpy()
    return drawn


def image_weights(labels: NDArray[np.int64], *, sampler: ClassSamplingName) -> NDArray[np.float64]:
    """How often, relatively, each image is drawn: its class's wanted share divided among the class's images."""
    counts = torch.from_numpy(np.bincount(labels)).double()
    wanted = SAMPLERS[sampler](counts)
    each: NDArray[np.float64] = (wanted / counts.clamp(min=1)).numpy()
    return each[labels]


def effective_number(counts: Tensor) -> Tensor:
    """Effective number of images of each class (Cui et al. 2019), for ``counts`` float64."""
    return (1 - BETA**counts) / (1 - BETA)


# The wanted share of each class from its number of images, float64 K. Without replacement `shuffle` draws each image once.
SAMPLERS: dict[ClassSamplingName, Callable[[Tensor], Tensor]] = {
    "shuffle": torch.clone,
    "balanced": torch.ones_like,
    "sqrt": torch.sqrt,
    "effective": effective_number,
}
