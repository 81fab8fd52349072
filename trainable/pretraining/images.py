"""Two views of every unlabelled image, in batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trainable.config.pretrain import PretrainConfig
from trainable.config.trial import AugmentConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack, open_unlabelled
from trainable.errors import UserError
from trainable.loader.batches import Batch, Loader
from trainable.loader.views import views
from trainable.randomness import derive, generator


class PairLoader:
    """The training images of a pre-training, a pair of views each; no label is read.

    Of a labelled data set these are the images of its train split alone: those of val and test stay unseen, so that
    what is fine-tuned from the backbone can be judged on them. Raises UserError where there are too few.
    """

    def __init__(self, config: PretrainConfig, *, spec: InputSpec, pin: bool) -> None:
        self.pack = open_unlabelled(config.data, spec) if config.unlabelled else open_pack(config.data, spec)
        self.rows = np.arange(len(self.pack)) if config.unlabelled else self.pack.indices("train")
        self.num_batches = len(self.rows) // config.batch_size
        _check_enough(len(self.rows), config=config)
        self._seed = config.seed
        self._used = self.num_batches * config.batch_size
        self._loader = Loader(
            _Pairs(pack=self.pack, augment=_view_settings(config), spec=spec, seed=config.seed),
            rows_of=self._order,
            batch_size=config.batch_size,
            workers=config.data.workers,
            pin=pin,
        )

    def epoch(self, number: int) -> Iterator[Tensor]:
        """The epoch's whole batches in an order of its own, 2N×C×S×S uint8: N first views, then N second ones.

        What does not fill a batch is left to other epochs, since the loss depends on how many images are compared.
        """
        return (batch.images for batch in self._loader.epoch(number))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        order = torch.randperm(len(self.rows), generator=generator(self._seed, "pretraining order", epoch)).numpy()
        rows: NDArray[np.int64] = self.rows[order[: self._used]]
        return rows


@dataclass(frozen=True, kw_only=True)
class _Pairs(Dataset[Batch]):
    pack: Pack
    augment: AugmentConfig
    spec: InputSpec
    seed: int

    def __getitem__(self, request: tuple[int, NDArray[np.int64]]) -> Batch:
        epoch, rows = request
        pair = [
            views(
                map(self.pack.image, rows),
                config=self.augment,
                spec=self.spec,
                seed=derive(self.seed, "pretraining view", number),
                sample_ids=self.pack.sample_ids[rows],
                number=epoch,
            )
            for number in range(2)
        ]
        return Batch(torch.cat(pair), torch.empty(0, dtype=torch.int64))


def _view_settings(config: PretrainConfig) -> AugmentConfig:
    """SimCLR's crop, flip and colour jitter; random operations and erasing are no part of it."""
    return AugmentConfig(strength="strong", auto="none", erase=0.0, flip=config.flip, rotate=config.rotate)


def _check_enough(num_images: int, *, config: PretrainConfig) -> None:
    if num_images < config.batch_size:
        raise UserError(f"batch_size: {config.batch_size} is more than the {num_images} training images")
    if config.method == "moco" and config.queue_size >= num_images:
        raise UserError(
            f"queue_size: {config.queue_size} keys of {num_images} training images would hold every image's own as a "
            f"negative; must be below {num_images}"
        )
