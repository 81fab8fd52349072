"""The door to open_clip: what the text tower beside a backbone makes of class names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, pad

from trainable.config.trial import ModelConfig, TrialConfig
from trainable.errors import OutageError, UserError, nearest
from trainable.libraries import library
from trainable.model.backbone import create_backbone, input_spec
from trainable.terminal import plain

FOLDER_FILE = "open_clip_config.json"
TOLERANCE = 1e-3  # of image features of length 1; the other GELU, or other weights, are further off
TEXTS_AT_ONCE = 64
IMAGES_COMPARED = 2
# The towers of timm's weights, as open_clip names architecture and weights. Weights that were trained with OpenAI's QuickGELU
# give their features with it alone: timm's architectures that have it are called so.
TOWERS: Mapping[str, tuple[str, str]] = {
    "vit_base_patch32_clip_quickgelu_224.openai": ("ViT-B-32-quickgelu", "openai"),
    "vit_base_patch16_clip_quickgelu_224.openai": ("ViT-B-16-quickgelu", "openai"),
    "vit_large_patch14_clip_quickgelu_224.openai": ("ViT-L-14-quickgelu", "openai"),
    "vit_large_patch14_clip_quickgelu_336.openai": ("ViT-L-14-336-quickgelu", "openai"),
    "vit_base_patch32_clip_quickgelu_224.metaclip_400m": ("ViT-B-32-quickgelu", "metaclip_400m"),
    "vit_base_patch32_clip_quickgelu_224.metaclip_2pt5b": ("ViT-B-32-quickgelu", "metaclip_fullcc"),
    "vit_base_patch16_clip_quickgelu_224.metaclip_400m": ("ViT-B-16-quickgelu", "metaclip_400m"),
    "vit_base_patch16_clip_quickgelu_224.metaclip_2pt5b": ("ViT-B-16-quickgelu", "metaclip_fullcc"),
    "vit_large_patch14_clip_quickgelu_224.metaclip_2pt5b": ("ViT-L-14-quickgelu", "metaclip_fullcc"),
    "vit_large_patch14_clip_quickgelu_224.dfn2b": ("ViT-L-14-quickgelu", "dfn2b"),
    "vit_huge_patch14_clip_quickgelu_224.dfn5b": ("ViT-H-14-quickgelu", "dfn5b"),
    "vit_base_patch32_clip_224.laion2b": ("ViT-B-32", "laion2b_s34b_b79k"),
    "vit_base_patch16_clip_224.laion2b": ("ViT-B-16", "laion2b_s34b_b88k"),
    "vit_large_patch14_clip_224.laion2b": ("ViT-L-14", "laion2b_s32b_b82k"),
    "vit_huge_patch14_clip_224.laion2b": ("ViT-H-14", "laion2b_s32b_b79k"),
    "vit_base_patch32_clip_224.datacompxl": ("ViT-B-32", "datacomp_xl_s13b_b90k"),
    "vit_base_patch32_clip_256.datacompxl": ("ViT-B-32-256", "datacomp_s34b_b86k"),
    "vit_base_patch16_clip_224.datacompxl": ("ViT-B-16", "datacomp_xl_s13b_b90k"),
    "vit_large_patch14_clip_224.datacompxl": ("ViT-L-14", "datacomp_xl_s13b_b90k"),
    "vit_base_patch16_siglip_224.webli": ("ViT-B-16-SigLIP", "webli"),
    "vit_base_patch16_siglip_256.webli": ("ViT-B-16-SigLIP-256", "webli"),
    "vit_base_patch16_siglip_384.webli": ("ViT-B-16-SigLIP-384", "webli"),
    "vit_large_patch16_siglip_256.webli": ("ViT-L-16-SigLIP-256", "webli"),
    "vit_large_patch16_siglip_384.webli": ("ViT-L-16-SigLIP-384", "webli"),
    "vit_so400m_patch14_siglip_224.webli": ("ViT-SO400M-14-SigLIP", "webli"),
    "vit_base_patch32_siglip_256.v2_webli": ("ViT-B-32-SigLIP2-256", "webli"),
    "vit_base_patch16_siglip_224.v2_webli": ("ViT-B-16-SigLIP2", "webli"),
    "vit_base_patch16_siglip_256.v2_webli": ("ViT-B-16-SigLIP2-256", "webli"),
    "vit_base_patch16_siglip_384.v2_webli": ("ViT-B-16-SigLIP2-384", "webli"),
    "vit_large_patch16_siglip_256.v2_webli": ("ViT-L-16-SigLIP2-256", "webli"),
    "vit_large_patch16_siglip_384.v2_webli": ("ViT-L-16-SigLIP2-384", "webli"),
    "vit_so400m_patch14_siglip_224.v2_webli": ("ViT-SO400M-14-SigLIP2", "webli"),
}


@dataclass(frozen=True)
class _Source:
    """What open_clip calls a model and, where that is no folder, its weights."""

    name: str
    tag: str | None = None


def check_text_tower(config: TrialConfig) -> None:
    """Raise UserError where :func:`text_start` finds no text tower or no open_clip; nothing is loaded or asked of a hub."""
    if find_spec("open_clip") is None:
        _open_clip()
    _source(config)


def text_start(config: TrialConfig, *, classes: Sequence[str]) -> dict[str, Tensor]:
    """What a ``text`` head begins with for these K classes: ``projection`` F×F, ``weight`` K×F and ``scale`` 1.

    A class's weights are the mean of what the text tower makes of its name in each of ``finetune.templates``, each of length 1
    (Radford et al. 2021); the scale is the towers' own. F is the width of the backbone's features. Raises UserError where
    open_clip, the tower or a class of ``finetune.class_names`` is missing, or where the image tower beside it gives other
    features than the backbone, OutageError for a hub that does not answer.
    """
    start = _start(
        config.model,
        source=_source(config),
        names=_names(config.finetune.class_names, classes=classes),
        templates=tuple(config.finetune.templates),
    )
    return dict(start)


def _names(called: Mapping[str, str], *, classes: Sequence[str]) -> tuple[str, ...]:
    for name in called:
        if name not in classes:
            raise UserError(f"finetune.class_names: the data have no class {name!r}{nearest(name, classes)}")
    return tuple(called.get(name, name.replace("_", " ").replace("-", " ")) for name in classes)


def _source(config: TrialConfig) -> _Source:
    """Where the text tower is found. Raises UserError where there is none."""
    asked = config.finetune.text_weights
    if asked == "auto":
        return _source_of_weights(config.model)
    if (Path(asked) / FOLDER_FILE).is_file():
        return _Source(f"local-dir:{Path(asked).resolve()}")
    name, slash, tag = asked.partition("/")
    if not slash or (name, tag) not in _open_clip().list_pretrained():
        raise UserError(
            f"finetune.text_weights: {asked!r} is no folder with {FOLDER_FILE} and no ARCHITECTURE/TAG of open_clip's, such as "
            "ViT-B-16/dfn2b"
        )
    return _Source(name, tag)


def _source_of_weights(model: ModelConfig) -> _Source:
    name = model.name if "." in model.name else f"{model.name}.{_default_tag(model.name)}"
    if model.weights != "pretrained" or name not in TOWERS:
        which = f"{name!r}" if model.weights == "pretrained" else f"model.weights: {model.weights}"
        raise UserError(
            f"finetune.text_weights: no text tower is known for {which}{nearest(name, TOWERS)}; or name the one that was trained "
            "with these weights, ARCHITECTURE/TAG as open_clip has it or a folder"
        )
    return _Source(*TOWERS[name])


def _default_tag(name: str) -> str:
    found = get_pretrained_cfg(name)
    return cast(str, found.tag) if found is not None else ""


@lru_cache(maxsize=4)
def _start(
    model: ModelConfig, *, source: _Source, names: tuple[str, ...], templates: tuple[str, ...]
) -> Mapping[str, Tensor]:
    towers, tokenizer = _towers(source)
    with torch.inference_mode():
        projection = _projection(towers, model=model, source=source)
        texts = [template.format(name) for name in names for template in templates]
        shown = [tokenizer(texts[first : first + TEXTS_AT_ONCE]) for first in range(0, len(texts), TEXTS_AT_ONCE)]
        features = torch.cat([towers.encode_text(tokens, normalize=True) for tokens in shown])
        weight = normalize(features.view(len(names), len(templates), -1).mean(dim=1), dim=1)
        start = {
            "projection": pad(projection, (0, 0, 0, projection.shape[1] - projection.shape[0])),
            "weight": pad(weight, (0, projection.shape[1] - projection.shape[0])),
            "scale": towers.logit_scale.exp().reshape(1),
        }
    return {name: value.clone() for name, value in start.items()}


def _projection(towers: Any, *, model: ModelConfig, source: _Source) -> Tensor:
    """E×F, which takes the backbone's features to those of the image tower, E ≤ F. Raises UserError where it does not."""
    size = towers.visual.image_size
    spec = input_spec(model, image_size=size if isinstance(size, int) else size[0], channels=3)
    backbone, _ = create_backbone(model, spec=spec, generator_seed=0)
    images = torch.randn(IMAGES_COMPARED, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(0))
    features = backbone.eval()(images)
    width = features.shape[1]
    projection = _last_layer(towers.visual, width=width)
    if projection is None or projection.shape[1] != width or projection.shape[0] > width:
        raise UserError(
            f"model.head: text knows no projection of {model.name!r} to the space of {source.name}'s text tower"
        )
    ours, expected = normalize(linear(features, projection), dim=1), towers.encode_image(images, normalize=True)
    if ours.shape != expected.shape or (ours - expected).abs().max() > TOLERANCE:
        raise UserError(
            f"finetune.text_weights: the image tower of {source.name} gives other features than {model.name!r} of model.weights: "
            f"{model.weights}; take the weights of both from one model, and the architecture called quickgelu where that one has "
            "this activation"
        )
    return projection


def _last_layer(visual: nn.Module, *, width: int) -> Tensor | None:
    """The weights E×F of the image tower's last layer, the identity where it has none, None where it is another kind of layer."""
    if getattr(visual, "proj", None) is not None:  # of open_clip's own transformers, F×E
        return cast(Tensor, visual.proj).detach().T
    if not hasattr(visual, "trunk"):
        return None
    last = getattr(visual.head, "proj", visual.trunk.get_classifier())  # type: ignore[operator, union-attr]
    if isinstance(last, nn.Identity):
        return torch.eye(width)
    return last.weight.detach() if isinstance(last, nn.Linear) and last.bias is None else None


def _towers(source: _Source) -> tuple[Any, Any]:
    """The model of both towers in eval mode and the tokenizer. Raises UserError, or OutageError as a hub does not answer."""
    open_clip = _open_clip()
    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights before it loads them
            towers = open_clip.create_model(source.name, pretrained=source.tag, require_pretrained=True)
        return towers.eval(), open_clip.get_tokenizer(source.name)
    except Exception as error:  # whatever its files, the hub or a library that it wants lead it to
        reason = plain(str(error).strip().partition("\n")[0]) or type(error).__name__
        is_outage = any(
            isinstance(each, OSError) for each in (error, error.__context__)
        )  # open_clip puts its own around it
        kind = OutageError if is_outage else UserError
        raise kind(f"finetune.text_weights: {source.name} cannot be had ({reason})") from error


def _open_clip() -> Any:
    return library("open_clip", extra="open-clip", wanted="model.head: text")
