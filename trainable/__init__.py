"""Fine-tunes one model from one configuration: ``from trainable import fit, TrialConfig``."""

from typing import TYPE_CHECKING, Any

from trainable.config.trial import TrialConfig
from trainable.errors import UserError

if TYPE_CHECKING:
    from trainable.training.fit import Epoch, fit

__all__ = ["Epoch", "TrialConfig", "UserError", "fit"]


def __getattr__(name: str) -> Any:
    """Load torch only when training is asked for, so that a configuration is checked in milliseconds."""
    if name in ("Epoch", "fit"):
        from trainable.training import fit as module

        return getattr(module, name)
    raise AttributeError(f"module 'trainable' has no attribute {name!r}")
