"""What is noticed about a data set, each kind with what is done about it and the key that decides."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

MOST_NAMED = 3  # examples that a line gives


class Kind(NamedTuple):
    """What is noticed, what is done about it, and the keys of `data` that decide otherwise."""

    noticed: str
    done: str
    keys: tuple[str, ...] = ()


KINDS = {
    # how files are understood
    "layout": Kind("how folders were understood, where they could mean something else", "said", ("layout",)),
    "left_out": Kind("files that are no images, by suffix or place", "left out, counted by reason"),
    "empty_class": Kind(
        "a folder beside classes without any image, a class of copies of others' images alone", "no class"
    ),
    "one_name": Kind("images with the name of another beside them but for the suffix, such as a mask", "both used"),
    "list": Kind(
        "a list that is not plain CSV: separators, encoding, spaces, paths; words for nothing, splits in a column that is not "
        "used",
        "read where it has one meaning",
    ),
    "partial_set": Kind("classes that no image of a labelled target has", "said"),
    # images: what one of them is, `3 images with transparency`
    "bad_image": Kind("that cannot be decoded", "a mistake", ("on_bad_image",)),
    "too_large": Kind("of too many pixels", "a mistake", ("max_pixels", "on_bad_image")),
    "exif": Kind("with EXIF that cannot be read", "the image is used as it is stored"),
    "frames": Kind("of several frames", "the first is used"),
    "thin": Kind("more than 16 times as long as wide", "their middle is used"),
    "sixteen_bit": Kind("in grey of 16 or 32 bits", "scaled to 8 bits", ("bit_depth",)),
    "twelve_bit": Kind(
        "in grey of 16 bits of which 12 or fewer are used", "scaled as 16 bits, so almost black", ("bit_depth",)
    ),
    "sixteen_bit_colour": Kind("in colours of 16 bits", "the lower 8 bits are dropped"),
    "clipped": Kind("with values outside the range of the bit depth", "clipped", ("bit_depth",)),
    "cmyk": Kind("in CMYK", "converted to RGB without a colour profile"),
    "palette": Kind("with a palette", "converted to its colours"),
    "transparent": Kind("with transparency", "laid on the background", ("background",)),
    "hidden_colours": Kind("with colours under fully transparent pixels", "not seen", ("background",)),
    # the same image more than once
    "twice_in_class": Kind("the same image twice in a class", "both used, never in two splits", ("duplicates",)),
    "in_two_classes": Kind("the same image in two classes", "both used", ("duplicates",)),
    "in_two_splits": Kind("the same image in two given splits", "said again with the test score", ("duplicates",)),
    "in_both_domains": Kind("images of the target that are in the source as well", "both used"),
    "groups_united": Kind("groups that share an image", "one group", ("group_column",)),
    # classes
    "alike_labels": Kind("names of classes that look alike", "different classes", ("labels",)),
    "rare": Kind("classes with too few images or groups", "a mistake", ("rare", "min_images")),
    "untrained": Kind("classes that are in a given val or test, not in train", "a mistake", ("rare",)),
    "missing_in_split": Kind("classes without an image in a given split", "not judged there"),
    "one_group": Kind("a class of which all images are of one group", "rare", ("group_column", "rare")),
    "lost": Kind("a class of which bad images leave none in a split", "a mistake"),
    "imbalance": Kind("a class ten times as frequent as another", "said", ("class_sampling",)),
    "few_target": Kind("too few images to adapt to", "a mistake", ("val_share", "test_share")),
}


def counted(number: int, noun: str, *, plural: str | None = None) -> str:
    """A number with its noun: `1 image`, `2 images`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing noticed: its ``kind``, how many images, files or classes it concerns, what it is in words, some of them by name.

    ``cure`` says what can be done; a mistake stops training until it is.
    """

    kind: str
    count: int
    text: str
    examples: tuple[str, ...] = ()
    cure: str = ""
    is_mistake: bool = False

    def __post_init__(self) -> None:
        assert self.kind in KINDS, f"there is no kind {self.kind}"

    def line(self) -> str:
        """In one line."""
        named = ", ".join(self.examples[:MOST_NAMED]) + (", …" if len(self.examples) > MOST_NAMED else "")
        examples = f", such as {named}" if named else ""
        return f"{self.text}{examples}" + (f"; {self.cure}" if self.cure else "")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"examples": list(self.examples), "line": self.line()}


def only_mistakes(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that stop training."""
    return [finding for finding in findings if finding.is_mistake]
