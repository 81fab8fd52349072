"""What a backbone expects of its input."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The input of one model: ``size`` pixels square, ``mean`` and ``std`` a channel on the 0–1 scale."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_share: float

    @property
    def stored_side(self) -> int:
        """Shorter side, pixels, that an image is resized to once so that the evaluation crop is ``size``."""
        return max(self.size, round(self.size / self.crop_share))
