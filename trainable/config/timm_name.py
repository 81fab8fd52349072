"""The names that the hub has for timm's models, as timm's own."""

import re


def timm_name(name: str) -> str:
    """The architecture of timm's, perhaps with a tag, that ``timm/NAME`` or ``hf-hub:timm/NAME`` means; others stay.

    Raises ValueError for a model of the hub that is none of timm's.
    """
    known = re.fullmatch(r"(?:hf[-_]hub:)?timm/([^/:]+)", name)
    if known:
        return known[1]
    if "/" in name or ":" in name:
        raise ValueError(
            f"{name!r} is no model of timm's: give an architecture, `resnet18`, perhaps with the tag of its weights, "
            "`resnet18.a1_in1k` or `hf-hub:timm/resnet18.a1_in1k`; weights from elsewhere are a file, `model.weights`"
        )
    return name
