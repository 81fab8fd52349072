"""The space files that come with the project, and space files made from them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from search.space.loading import read_changed, validated
from search.space.spec import SearchSpec
from search.space.writing import document_lines, scalar, wrapped
from trainable.config.strict_yaml import read_document
from trainable.errors import UserError, nearest

FOLDER = Path(__file__).parents[1] / "spaces"
USUAL = "resnet"  # for a backbone of no family below
# The shipped space of a family of backbones, by how timm's names begin.
FAMILIES = {
    "convnext": "convnext",
    "efficientnet": "efficientnet",
    "tf_efficientnet": "efficientnet",
    "mobilenet": "mobilenet",
    "vit": "vit",
    "deit": "vit",
    "beit": "vit",
}


def shipped_names() -> list[str]:
    """Names of the shipped spaces, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def shipped_file(name: str) -> Path:
    """The file of a shipped space. Raises UserError for an unknown name."""
    names = shipped_names()
    if name not in names:
        raise UserError(f"--like {name}: no shipped space, there are {', '.join(names)}{nearest(name, names)}")
    return FOLDER / f"{name}.yaml"


def space_of_family(model: str | None) -> str:
    """The shipped space that is made for backbones such as a timm model; ``USUAL`` without one."""
    families = (space for prefix, space in FAMILIES.items() if (model or "").startswith(prefix))
    return next(families, USUAL)


def made_like(
    name: str,
    *,
    path: Path,
    model: str | None = None,
    data: str | None = None,
    minutes: float | None = None,
    overrides: Sequence[str] = (),
) -> tuple[str, SearchSpec]:
    """The text of a space file for ``path`` made from a shipped space, and the search that it says.

    The search is called as the file. A ``model`` has timm's weights where the space has those of a package. Raises UserError
    for an unknown space or value.
    """
    file = shipped_file(name)
    if model is not None:
        overrides = (f"model.name={scalar(model)}", *_weights(file), *overrides)
    document = read_changed(file, overrides, data=data, minutes=minutes, name=path.stem)
    spec = validated(document, where=str(path))
    head = _head(name, file=file, path=path, spec=spec, is_of_user=data is not None)
    return "\n".join([*head, *document_lines(document)]) + "\n", spec


def _weights(file: Path) -> list[str]:
    """An override to the published weights where a space begins with those of a package, which fit its own backbone alone."""
    weights = read_document(file)["base"]["model"].get("weights", "")
    return ["model.weights=pretrained"] if str(weights).startswith("package:") else []


def _head(name: str, *, file: Path, path: Path, spec: SearchSpec, is_of_user: bool) -> list[str]:
    notes = file.read_text(encoding="utf-8").partition("search:")[0].split("\n#\n", 1)[1].rstrip("\n")
    model, place = spec.base.get("model.name"), spec.base.get("data.path")
    what = "one of several backbones" if model is None else scalar(model)
    images = "the images of the space" if place is None else scalar(place)
    hint = " --data path/to/images" if place is not None and not is_of_user else ""
    return [
        f"# Fine-tune {what} on {images}.",
        f"#   python -m search run {shlex.quote(str(path))}{hint}",
        "#",
        *wrapped("From", f"The shipped space {name}; the notes below are its own, of its backbone, images and bounds."),
        notes,
    ]
