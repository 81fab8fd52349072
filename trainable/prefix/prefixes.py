"""The door to what frozen layers make of images: ``open`` gives it, from the disk where it pays to keep it there."""

import errno
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from trainable.atomic import OF_DISK
from trainable.config.techniques import METHODS
from trainable.config.trial import DataConfig, TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, cache_errors, cache_folder
from trainable.loader.batches import Rows
from trainable.model.chain import Chain, agrees, chain_of, num_frozen_links
from trainable.model.layer_plan import Depth
from trainable.model.network import Network
from trainable.model.phase import Phase, phases
from trainable.prefix.key import View, image_key, level_names, prefix_digests
from trainable.prefix.outputs import BLOCK_SIZE, Kept, Outputs, Source, Spent
from trainable.prefix.store import Block, Store, block_of, free_share
from trainable.randomness import generator

FOLDER = "prefix"
READ_BYTES_PER_MS = 1e6  # from a disk's cache, carefully guessed: an output that is computed faster is not kept
VIEWS_OPEN = 16  # in a process, mapped
NUM_TRIED = 2  # images on which a chain is held against its backbone
logger = logging.getLogger(__name__)
_opened: OrderedDict[tuple[Path, str], Kept] = OrderedDict()  # of this process, by folder and name
_tried: dict[Chain, bool] = {}


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """Images of ``rows``, ascending, of a pack as a ``view`` varies them, None for the evaluation view.

    ``images`` gives any of them normalised, N×C×S×S on the device.
    """

    pack: Pack
    rows: Rows
    spec: InputSpec
    view: View | None
    images: Callable[[Rows], Tensor]


@dataclass(kw_only=True)
class Prefixes:
    """What the frozen layers of a trial's networks make of its images; ``store`` is None where nothing is kept.

    ``unchanging`` are the digests of the links that rest in every phase, once they are asked for; ``asked_links`` says behind
    how many links other trials may freeze, whose outputs are kept on the way but for the ``refused``, which are not worth it.
    """

    config: TrialConfig
    chain: Chain
    autocast: Callable[[], AbstractContextManager[object]]
    store: Store | None
    asked_links: frozenset[int] = frozenset()
    refused: set[int] = field(default_factory=set)
    spent: Spent = field(default_factory=Spent)
    not_kept: set[str] = field(default_factory=set)
    unchanging: list[str] | None = None

    def links(self, phase: Phase) -> int:
        """How many links of a network rest in a phase: what they make of an image is the same whenever it is computed."""
        if phase.moving_norms or phase.within != "nothing":
            return 0
        return num_frozen_links(self.chain, frozen=phase.frozen)

    def open(self, network: Network, *, links: int, viewed: Viewed) -> Outputs:
        """What the first ``links`` links of a network, as they are now, make of images.

        Kept blocks are taken from the store and missing ones computed by all who wait for them, each from the deepest kept output
        of the links before. What is not worth keeping, or has no room, is computed as it is asked for; the values are the
        same. Raises UserError for a folder that cannot be used.
        """
        half = self.config.data.prefix_dtype == "float16"
        device = next(network.backbone.parameters()).device
        source = Source(
            links=network.links(self.chain)[:links],
            images=viewed.images,
            half=half,
            autocast=self.autocast,
            device=device,
        )
        if self.store is None:
            return Outputs(viewed.rows, source=source, spent=self.spent)
        key = image_key(viewed.pack, viewed.rows, spec=viewed.spec, view=viewed.view)
        digests = self._digests(network, links=links)
        names = level_names(digests, config=self.config, device=device, images=key)
        kept = None
        if names[-1] not in self.not_kept:
            kept = self._kept(names, digests=digests, rows=viewed.rows, source=source)
        return Outputs(viewed.rows, source=source, spent=self.spent, kept=kept)

    def _digests(self, network: Network, *, links: int) -> list[str]:
        """Digests of a network's first links, computed once where they never change in this trial."""
        if METHODS[self.config.adapt.method].target_norms is not None:
            return list(prefix_digests(network.backbone, self.chain, links=links))
        if self.unchanging is None:
            every = phases(self.config, plan=network.plan, until=self.config.train.epochs)
            always = min(self.links(phase) for phase in every)
            self.unchanging = list(prefix_digests(network.backbone, self.chain, links=always))
        if links > len(self.unchanging):
            return list(prefix_digests(network.backbone, self.chain, links=links))
        return self.unchanging[:links]

    def take_spent(self) -> Spent:
        """What was spent and saved since this was asked last."""
        spent = replace(self.spent)
        vars(self.spent).update(vars(Spent()))
        return spent

    def _kept(self, names: list[str], *, digests: list[str], rows: Rows, source: Source) -> Kept | None:
        """All of a view; None where it is not to be kept."""
        assert self.store is not None
        key = (self.store.folder, names[-1])
        if key in _opened:
            _opened.move_to_end(key)
            return _opened[key]
        try:
            with cache_errors(self.store.folder):
                self.store.ask(digests[-1])
                asked = tuple(
                    done
                    for done, digest in enumerate(digests[:-1], 1)
                    if done in self.asked_links or self.store.is_asked(digest)
                )
                blocks = _Filling(
                    store=self.store,
                    names=names,
                    asked=asked,
                    refused=self.refused,
                    rows=rows,
                    source=source,
                    spent=self.spent,
                ).all_blocks()
        except Exception as error:
            if getattr(error.__cause__, "errno", None) not in (*OF_DISK, errno.EFBIG):
                raise
            logger.warning("%s: nothing more is kept there by this trial", error)
            self.store = None
            return None
        if blocks is None:
            self.not_kept.add(names[-1])
            return None
        held = sum(kept.held_bytes for kept in _opened.values())
        _opened[key] = Kept(blocks, device=source.device, held_bytes=held)
        if len(_opened) > VIEWS_OPEN:
            _opened.popitem(last=False)
        return _opened[key]


@dataclass(frozen=True, kw_only=True)
class _Filling:
    """Gets every block of one view, each computed by whoever claims it first.

    ``names`` are those of the links' outputs; on the way to the last, others ask for the outputs of ``asked`` many links, unless
    they are ``refused``, which is noted where one turns out not to be worth keeping.
    """

    store: Store
    names: list[str]
    asked: tuple[int, ...]
    refused: set[int]
    rows: Rows
    source: Source
    spent: Spent

    def all_blocks(self) -> list[Block] | None:
        """The blocks in order; None where they are not worth keeping or find no room."""
        count = -(-len(self.rows) // BLOCK_SIZE)
        found: dict[int, Block] = {}
        while len(found) < count:
            missing = [index for index in range(count) if index not in found]
            before = len(found)
            for index in missing:
                if not self._take(index, found=found, wait=False):
                    return None
            if len(found) == before and not self._take(missing[0], found=found, wait=True):
                return None
        return [found[index] for index in range(count)]

    def _take(self, index: int, *, found: dict[int, Block], wait: bool) -> bool:
        """Add a block that is there or nobody else is computing; False where no block is to be kept."""
        block = self.store.load(self._name(index))
        if block is None and not self._take_those_before(index, wait=wait):
            return True
        if block is None:
            started = time.perf_counter()
            with self.store.claimed(self._name(index), wait=wait) as is_mine:
                self.spent.waiting += time.perf_counter() - started
                if not is_mine:
                    return True
                block = self.store.load(self._name(index))
                if block is None:
                    block = self._computed(index)
                    if not self._is_worth_it(block) or not self.store.save(self._name(index), block):
                        return False
                    block = self.store.load(self._name(index)) or block
        found[index] = block
        return True

    def _take_those_before(self, index: int, *, wait: bool) -> bool:
        """Get the block of these images behind fewer links, for others too; False where somebody else is computing it."""
        for done in self.asked:
            if done in self.refused:
                continue
            found: dict[int, Block] = {}
            source = replace(self.source, links=self.source.links[:done])
            before = replace(self, names=self.names[:done], asked=(), source=source)
            if not before._take(index, found=found, wait=wait):
                self.refused.add(done)
            elif not found:
                return False
        return True

    def _computed(self, index: int) -> Block:
        rows, started = self.rows[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE], time.perf_counter()
        done, base = self._deepest_below(index)
        outputs = self.source.compute(rows) if base is None else self.source.go_on(base, done=done)
        if outputs.device.type == "cuda":  # which is still at work, while a block is kept by what it took
            torch.cuda.synchronize(outputs.device)
        seconds = time.perf_counter() - started
        self.spent.computing += seconds
        self.spent.images += len(rows)
        milliseconds = 1000 * seconds / len(rows) + (0.0 if base is None else base.milliseconds)
        return block_of(outputs, half=self.source.half, milliseconds=milliseconds)

    def _deepest_below(self, index: int) -> tuple[int, Block | None]:
        """Find the block of these images behind as many links as are kept, from which the others go on."""
        for done in range(len(self.names) - 1, 0, -1):
            block = self.store.load(self._name(index, done=done))
            if block is not None:
                return done, block
        return 0, None

    def _is_worth_it(self, block: Block) -> bool:
        num_bytes = block.values.nbytes / len(block.values)
        whole = int(num_bytes * len(self.rows))
        return block.milliseconds > num_bytes / READ_BYTES_PER_MS and self.store.has_room_for(whole)

    def _name(self, index: int, *, done: int = 0) -> str:
        """The block of these images behind so many links, all of them where none are given."""
        return f"{self.names[done - 1]}-{index:05d}"


def create_prefixes(
    config: TrialConfig,
    *,
    network: Network,
    spec: InputSpec,
    depths: Sequence[Depth] = (),
    autocast: Callable[[], AbstractContextManager[object]],
) -> Prefixes:
    """The prefixes of a trial, kept beside its decoded images unless ``data.prefix_gb`` is 0.

    Those of ``depths``, which other trials may freeze, are kept too when one goes through them.
    """
    chain = chain_of(config.model, spec=spec, flexible=config.data.early_size is not None)
    limit = limit_bytes(config.data)
    return Prefixes(
        config=config,
        chain=chain if _is_right(chain, network=network, spec=spec, autocast=autocast) else (),
        autocast=autocast,
        store=Store(folder=cache_folder(config.data) / FOLDER, limit_bytes=limit) if limit else None,
        asked_links=frozenset(num_frozen_links(chain, frozen=network.plan.frozen(depth)) for depth in depths),
    )


def limit_bytes(data: DataConfig) -> int:
    """``data.prefix_gb`` in bytes; without one a share of what is free."""
    if data.prefix_gb is None:
        return free_share(cache_folder(data) / FOLDER)
    return round(1e9 * data.prefix_gb)


def _is_right(
    chain: Chain, *, network: Network, spec: InputSpec, autocast: Callable[[], AbstractContextManager[object]]
) -> bool:
    """Whether the links compute what the backbone does, tried once in a process."""
    if chain not in _tried:
        device = next(network.parameters()).device
        images = torch.randn(NUM_TRIED, len(spec.mean), spec.size, spec.size, generator=generator(0, "chain"))
        with autocast():
            _tried[chain] = agrees(network.backbone, network.links(chain), images.to(device))
        if not _tried[chain]:
            logger.warning(
                "%s computes otherwise than its links: its frozen layers are computed anew",
                type(network.backbone).__name__,
            )
    return _tried[chain]
