"""Shows an image to the network: varied for training, the same every time for evaluation."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from trainable.config.trial import AugmentConfig
from trainable.data.input_spec import InputSpec
from trainable.loader.augmentations import OPERATIONS, STRENGTHS, crops
from trainable.loader.crops import Image, centres, cut, draw_crops, resized, sizes_of
from trainable.loader.draws import Draws, draws_for
from trainable.loader.own_code import import_code
from trainable.loader.symmetries import symmetries
from trainable.randomness import derive

CPU = torch.device("cpu")
BYTES_TOGETHER = 160_000  # of views that a CPU makes at once, which then stay in its cache
VIEWS_BEHIND_HALF = 4  # of augment.views: auto, where each is computed once for all trials


def view(image: Image, *, config: AugmentConfig, spec: InputSpec, seed: int, sample_id: int, number: int) -> Tensor:
    """The C×S×S uint8 view ``number`` of an H×W×C image in training, S being ``spec.size``.

    A pure function: it depends on neither the global generators nor what was drawn before. Strengths `none` and
    `symmetries` begin with the evaluation view; flips and quarter turns are ``config.flip`` and ``config.rotate`` at every
    strength but none. ``symmetries`` show all of these there are before one comes again.
    Colour jitter and the policies of ``config.auto``, which know grey and colour only, are left out for other numbers of
    channels; on grey they change brightness, contrast and shape.
    """
    return views([image], config=config, spec=spec, seed=seed, sample_ids=[sample_id], number=number)[0]


def views(
    images: Iterable[Image],
    *,
    config: AugmentConfig,
    spec: InputSpec,
    seed: int,
    sample_ids: Iterable[int],
    number: int,
    device: torch.device = CPU,
) -> Tensor:
    """The :func:`view` of every image, N×C×S×S uint8, made on the ``device``.

    A CPU and a GPU give the same to the bit but for crops, whose pixels may differ by one step of 256.
    """
    images, sample_ids = list(images), list(sample_ids)
    if not varies(config, channels=len(spec.mean)):
        return evaluation_views(images, spec, device=device)
    together = len(images)
    if device.type == "cpu":
        together = max(1, BYTES_TOGETHER // (len(spec.mean) * spec.size**2))
    parts = []
    for start in range(0, len(images), together):
        draws = draws_for(sample_ids[start : start + together], seed=seed, number=number)
        parts.append(_varied(images[start : start + together], draws, config=config, spec=spec, device=device))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _varied(
    images: Sequence[Image], draws: Draws, *, config: AugmentConfig, spec: InputSpec, device: torch.device
) -> Tensor:
    smallest = STRENGTHS[config.strength].smallest_crop
    if smallest is None:
        shown = evaluation_views(images, spec, device=device)
    else:
        boxes = draw_crops(draws, sizes=sizes_of(images), smallest=smallest)
        shown = resized(cut(images, boxes, device=device), size=spec.size, interpolation=spec.interpolation)
    for operation in OPERATIONS.values():
        if operation.applies(config, len(spec.mean)):
            shown = operation.apply(shown, draws, config, spec)
    return _by_own_code(shown, draws, config=config) if config.custom else shown


def _by_own_code(images: Tensor, draws: Draws, *, config: AugmentConfig) -> Tensor:
    """A user's functions see one image on the CPU, and may draw from torch's global generator."""
    functions = [import_code(path) for path in config.custom]
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, sample_id in zip(images.cpu(), draws.sample_ids.tolist(), strict=True):
            torch.default_generator.manual_seed(derive(draws.seed, "view", sample_id, draws.number, "custom"))
            for function in functions:
                image = function(image)
            changed.append(image)
    return torch.stack(changed).to(images.device)


def num_views(config: AugmentConfig, *, channels: int, begins_behind: float) -> int | None:
    """How many views of an image training sees; None for another in every epoch.

    ``begins_behind`` is the share of the network's work that is done before the layers at which training begins.
    """
    if not varies(config, channels=channels):
        return 1
    operations = {name for name, operation in OPERATIONS.items() if operation.applies(config, channels)}
    wanted = config.views
    if config.strength == "symmetries" and operations <= {"symmetries"} and not config.custom:
        return min(len(symmetries(config)), wanted) if isinstance(wanted, int) else len(symmetries(config))
    if wanted == "auto":
        return VIEWS_BEHIND_HALF if begins_behind >= 0.5 else None
    return None if wanted == "each_epoch" else wanted


def view_of(epoch: int, *, num: int | None) -> int:
    """The number of the view that an epoch sees, from 1."""
    return epoch if num is None else (epoch - 1) % num + 1


def evaluation_view(image: Image, spec: InputSpec) -> Tensor:
    """The C×S×S centre of an H×W×C image whose shorter side is at least S."""
    return evaluation_views([image], spec)[0]


def evaluation_views(images: Sequence[Image], spec: InputSpec, *, device: torch.device = CPU) -> Tensor:
    """The :func:`evaluation_view` of every image, N×C×S×S uint8 on the ``device``."""
    return torch.stack(cut(images, centres(sizes_of(images), size=spec.size), device=device))


def varies(config: AugmentConfig, *, channels: int) -> bool:
    """Whether training sees anything but the evaluation view of images with so many channels."""
    return (
        bool(config.custom)
        or crops(config)
        or any(operation.applies(config, channels) for operation in OPERATIONS.values())
    )
