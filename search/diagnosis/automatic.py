"""An automatic search's space file: a look at the images, decisions, the text, each told as it comes."""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from search.diagnosis.decisions import (
    CANDIDATES,
    Decision,
    Device,
    choose_backbone,
    choose_bounds,
    choose_promotion,
    choose_sample,
    describe_size,
    describe_training,
    in_time,
    passes_within,
)
from search.diagnosis.diagnose import DEMO_MODEL, DEMO_MODULE, SETTABLE
from search.diagnosis.request import Request
from search.diagnosis.space_file import images_named, space_document
from search.space.loading import parse_override, validated
from search.space.overrides import apply_override
from search.space.paths import nest
from search.space.preflight import check_models, check_techniques, weights_of
from search.space.spec import SearchSpec
from search.space.writing import document_lines, wrapped, write_space
from search.tune.machine import local_resources
from trainable.config.trial import TrialConfig
from trainable.cpus import usable_cpus
from trainable.data.input_spec import InputSpec
from trainable.data.pack import Pack, open_pack
from trainable.data.resolution import median_short_side
from trainable.diagnosis.advice import Advice, advice
from trainable.diagnosis.diagnose import Diagnosis, look
from trainable.diagnosis.features import Progress
from trainable.model.backbone import input_spec
from trainable.model.forward_cost import forward_cost
from trainable.model.weights_at_hand import weights_at_hand

Tell = Callable[[str], None]
SEEN_BY_LOOK = ("model.name", "model.weights")  # of a model; the rest of what is asked for is the search's alone
BASELINES = ["linear_probe"]  # a trial of the search's: others are trained whatever the minutes


def write_automatic_space(request: Request, *, minutes: float, tell: Tell, progress: Progress | None = None) -> None:
    """Look at the images through a frozen backbone, decide what is searched, and write it to the request's file.

    The same images, words, machine and weights at hand give the same file. ``progress`` hears how far the look is. Raises
    UserError for images, weights or values that cannot be used.
    """
    asked = _asked(request)
    device: Device = "gpu" if local_resources()["gpu"] and asked.get("train.device") != "cpu" else "cpu"
    base, backbone = choose_backbone(
        asked,
        device=device,
        at_hand=_at_hand(device),
        package=DEMO_MODEL if find_spec(DEMO_MODULE) else None,
    )
    base = {"train.channels_last": True, **asked, **base}  # as fast or faster for every backbone
    _, outline = _changed(_sections(request, minutes=minutes) | {"base": base}, request=request)
    check_models(outline)  # with the line above: mistakes show before the look
    config = TrialConfig.model_validate(nest(base), strict=True)
    spec = input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)
    pack = open_pack(config.data, spec)
    _tell_data(pack, request=request, tell=tell)
    pace: dict[str, Any] = {
        "gmacs": forward_cost(config).gmacs,
        "device": device,
        "cpus": usable_cpus(),
        "minutes": minutes,
    }
    limit, sample = _sample(pack, pace=pace)
    decisions = [backbone, _size(config, spec=spec), sample]
    for line in (
        *(decision.line() for decision in decisions),
        *(f"weights: {each.line()}" for each in weights_of(outline)),
    ):
        tell(line)
    diagnosis, _ = look(config, limit=limit, progress=progress)
    passes = passes_within(num_images=sum(len(pack.indices(split)) for split in ("train", "val")), **pace)
    _write(request, base=base, diagnosis=diagnosis, minutes=minutes, passes=passes, decisions=decisions, tell=tell)


def _asked(request: Request) -> dict[str, Any]:
    """The values by dotted path of which the look must know. Raises UserError for a text that is not ``path=value``."""
    given = {"data.path": request.data, "model.name": request.model, "model.weights": request.weights}
    asked = {path: value for path, value in given.items() if value is not None}
    for override in map(parse_override, request.overrides):
        if override.path in SEEN_BY_LOOK or override.path.split(".")[0] in SETTABLE:
            asked[override.path] = override.value
    return asked


def _at_hand(device: Device) -> dict[str, str]:
    """Of each candidate whose published weights lie in a cache, which and where."""
    places = {name: weights_at_hand(name, weights="pretrained") for name in CANDIDATES[device]}
    return {name: place.line() for name, place in places.items() if place is not None and place.kind == "cache"}


def _sections(request: Request, *, minutes: float, passes: float = math.inf) -> dict[str, Any]:
    """What of the space file does not depend on the look, where so many ``passes`` of the images fit into the minutes."""
    return {
        "search": {
            "name": request.search_name,
            "metric": "val/balanced_accuracy",
            "budget": {"minutes": minutes},
            "seed": 0,
        },
        "scheduler": choose_bounds(minutes, passes=passes)[0],
        "baselines": BASELINES,
        **choose_promotion(passes=passes)[0],
    }


def _changed(document: dict[str, Any], *, request: Request) -> tuple[dict[str, Any], SearchSpec]:
    """The contents of a space file with the values asked for, and what they say. Raises UserError for one that cannot be."""
    for text in request.overrides:
        document = apply_override(document, parse_override(text))
    return document, validated(document, where=str(request.file))


def _tell_data(pack: Pack, *, request: Request, tell: Tell) -> None:
    tell(f"{request.data}:")
    for line in pack.report.get("lines", ()):
        tell(f"  {line}")


def _sample(pack: Pack, *, pace: dict[str, Any]) -> tuple[int | None, Decision]:
    num_images = max(len(pack.indices(split)) for split in ("train", "val"))
    return choose_sample(num_images=num_images, num_classes=len(pack.classes), **pace)


def _size(config: TrialConfig, *, spec: InputSpec) -> Decision:
    return describe_size(
        spec.size, is_asked=config.data.image_size is not None, short_side=median_short_side(config.data)
    )


def _write(
    request: Request,
    *,
    base: dict[str, Any],
    diagnosis: Diagnosis,
    minutes: float,
    passes: float,
    decisions: Sequence[Decision],
    tell: Tell,
) -> None:
    """Decide by the diagnosis and the time, write the space file, and show it."""
    advised, pace = in_time(advice(diagnosis), passes=passes, shows_stages=diagnosis.lead is not None)
    every = [
        pace,
        *describe_training(advised),
        choose_bounds(minutes, passes=passes)[1],
        choose_promotion(passes=passes)[1],
    ]
    later = [decision for decision in every if decision is not None]
    for line in (*(f"  {reason}" for reason in advised.reasons), *(decision.line() for decision in later)):
        tell(line)
    document: dict[str, Any] = space_document(advised, diagnosis=diagnosis, base=base, name=request.search_name)
    document, spec = _changed(document | _sections(request, minutes=minutes, passes=passes), request=request)
    check_techniques(spec)
    body = document_lines(document)
    head = _head(request, advised=advised, base=base, decisions=[*decisions, *later])
    write_space("\n".join([*head, *body]) + "\n", path=request.file, where=str(request.file))
    tell(f"space: {request.file}")
    for line in body:
        if not line.lstrip().startswith("#"):
            tell(f"  {line}")


def _head(request: Request, *, advised: Advice, base: dict[str, Any], decisions: Sequence[Decision]) -> list[str]:
    lines = [
        f"# Fine-tune on {images_named(base)}: {advised.size}, {advised.similarity} to what the backbone knows. Written by",
        f"#   {request.command()}",
        "#",
        *wrapped("Chosen", "What was decided, and which words of the command decide otherwise:"),
    ]
    for decision in decisions:
        lines += wrapped("", f"- {decision.line()}")
    lines += wrapped("Varies", "What a diagnosis of these images advises:")
    for reason in advised.reasons:
        lines += wrapped("", f"- {reason}")
    return lines
