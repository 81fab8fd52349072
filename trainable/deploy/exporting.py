"""From a trained network to files that run without this project, and the table of what each gives."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file

from trainable.atomic import write_beside
from trainable.config.trial import TrialConfig
from trainable.data.readers.sample import SPLITS
from trainable.deploy import int8, pruning
from trainable.deploy.pruning import prune
from trainable.deploy.recovery import Recovery, check_recoverable, recover
from trainable.deploy.table import FORMATS, Table, read_examples
from trainable.deploy.variant import Variant, one_thread
from trainable.errors import UserError, nearest
from trainable.json_text import to_json
from trainable.loader.symmetries import Symmetry
from trainable.model.network import Network, create_network
from trainable.training.inputs import Images, open_images
from trainable.training.teacher import bare_config

TABLE = "variants.json"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to export: files of these formats; with ``int8`` one in 8 bits too; with ``prune``, the share of the parameters
    to remove, all of it for a pruned network as well, trained again as ``recovery`` says. Judged on ``split``.

    Raises UserError for an unknown format or split and a share that is not between 0 and 1.
    """

    to: tuple[str, ...] = ("onnx",)
    int8: bool = False
    prune: float | None = None
    recovery: Recovery = field(default_factory=Recovery)
    split: str = "val"

    def __post_init__(self) -> None:
        for name in self.to:
            if name not in FORMATS:
                raise UserError(
                    f"--to: unknown format {name!r}{nearest(name, FORMATS)}; there are {', '.join(FORMATS)}"
                )
        if self.prune is not None and not 0 < self.prune < 1:
            raise UserError(f"--prune: {self.prune} is not a share of the parameters between 0 and 1, such as 0.3")
        if self.split not in SPLITS:
            raise UserError(f"--split: unknown split {self.split!r}; there are {', '.join(SPLITS)}")
        if self.recovery.epochs < 1:
            raise UserError(f"--recovery-epochs: {self.recovery.epochs} is below 1")


def export_weights_file(
    config: TrialConfig,
    *,
    weights: Path,
    classes: Sequence[str],
    wanted: Wanted,
    folder: Path,
    views: Sequence[Symmetry] = (),
) -> list[Variant]:
    """:func:`export` of the network of ``config`` whose weights are in the safetensors file ``weights``, seen in ``views`` too.

    Raises UserError where its images are of other ``classes`` now, too.
    """
    images = open_images(config, size=config.data.image_size)
    if images.pack.classes != tuple(classes):
        raise UserError(
            f"data.path: holds the classes {', '.join(images.pack.classes)}, the model {', '.join(classes)}"
        )
    network = load_network(config, weights=weights, images=images)
    network.views = tuple(views)
    return export(network, config=config, wanted=wanted, folder=folder)


def load_network(config: TrialConfig, *, weights: Path, images: Images) -> Network:
    """The network of a trial with the weights of a file, without what was beside it in training."""
    network = create_network(bare_config(config), spec=images.spec, num_classes=len(images.pack.classes))
    network.load_state_dict(load_file(weights))
    return network


def export(network: Network, *, config: TrialConfig, wanted: Wanted, folder: Path) -> list[Variant]:
    """Write the files that are ``wanted``, and the table of them as JSON; gives the table, the network in torch first.

    The network is left on the CPU, in eval mode, with nothing to train; ``config`` says where its images are. Raises UserError
    for missing libraries, for a network that cannot be pruned, and where a file in float32 would give other logits than the
    network by more than 1e-4 (see :class:`Variant`).
    """
    _require(network, config=config, wanted=wanted)
    images = open_images(config, size=config.data.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside, one_thread():
        variants = list(_variants(network, config=config, wanted=wanted, images=images, folder=Path(beside)))
        for variant in variants:
            if variant.file is not None:
                (Path(beside) / variant.file).replace(folder / variant.file)
    with write_beside(folder / TABLE) as file:
        file.write(to_json([variant.as_dict() for variant in variants], indent=1).encode())
    return variants


def _require(network: Network, *, config: TrialConfig, wanted: Wanted) -> None:
    """Everything that could be missing, before the work begins."""
    for name in wanted.to:
        FORMATS[name].require()
    if wanted.int8:
        int8.require(int8.choose(network))
    if wanted.prune is not None:
        pruning.require()
        pruning.check_prunable(network, name=config.model.name)
        check_recoverable(config)


def _variants(
    network: Network, *, config: TrialConfig, wanted: Wanted, images: Images, folder: Path
) -> Iterator[Variant]:
    network = network.cpu().eval()
    table = Table(
        folder=folder, images=images, examples=read_examples(images, split=wanted.split), to=wanted.to, int8=wanted.int8
    )
    yield from table.rows(network, of=network, note="")
    if wanted.prune is None:
        return
    smaller = prune(network, share=wanted.prune, spec=images.spec, name=config.model.name)
    smaller = recover(smaller, config=config, recovery=wanted.recovery)
    note = f"trained again for {wanted.recovery.epochs} epochs at rate {wanted.recovery.lr:g}"
    yield from table.rows(smaller, of=network, note=note)
