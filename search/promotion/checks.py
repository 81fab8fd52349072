"""What must hold before anything is trained for a promotion."""

import re
from collections.abc import Sequence

from search.ledger.ledger import Ledger
from search.ledger.stored import check_finished
from search.ledger.trials import best_trial
from search.promotion.refit import best_recipes
from search.space.sections import NAME_PATTERN
from search.space.spec import SearchSpec
from trainable.config.techniques import NORM_METHODS
from trainable.config.trial import TrialConfig
from trainable.data.image_guard import check_unchanged
from trainable.errors import UserError, nearest
from trainable.serving.encoded import fingerprint_now


class NotJudgeableError(UserError):
    """No labelled image can tell the quality of what would be promoted."""


def check_ready(spec: SearchSpec, ledger: Ledger) -> None:
    """Check that a search is finished, its images are still there, the gate can judge its best.

    Raises UserError, ImagesChangedError.
    """
    check_finished(spec, ledger)
    _check_images(spec, ledger)
    check_judgeable(spec, ledger)
    check_floors(spec, classes=list(ledger.notes.data.classes))


def check_model_name(spec: SearchSpec) -> None:
    """Raise UserError where the registered model would have no valid name: an experiment may be called what a model may not."""
    if re.fullmatch(NAME_PATTERN, spec.model_name) is None:
        raise UserError(
            f"promote.model: missing, and {spec.model_name!r} (tracking.experiment) can be no model's name: letters, digits, "
            "`.`, `_`, `-`; `--set promote.model=NAME` gives one"
        )


def check_floors(spec: SearchSpec, *, classes: Sequence[str]) -> None:
    """Raise UserError for a least recall of a class that there is not."""
    floors = spec.promote.min_recall
    for name in floors if isinstance(floors, dict) else ():
        if name not in classes:
            raise UserError(f"promote.min_recall.{name}: there is no such class{nearest(name, classes)}")


def check_judgeable(spec: SearchSpec, ledger: Ledger) -> None:
    """Raise NotJudgeableError for a recipe whose quality no labelled image can tell.

    A network with the target's batch norms is for the target, and only an oracle's run has labels of it.
    """
    if spec.base.get("data.target") is None or spec.base.get("data.oracle"):
        return
    for number in dict.fromkeys(number for recipe in best_recipes(spec, ledger) for number in recipe.trials):
        method = spec.config_of(ledger.trial(number)).get("adapt", {}).get("method")
        if method in NORM_METHODS:
            raise NotJudgeableError(
                f"{spec.search.name}: trial {number} takes its batch norms from the target (adapt.method: {method}), and no "
                "labelled image of the target says how good that is; promote.confirm.top may leave it out, data.oracle "
                "reads labels"
            )


def _check_images(spec: SearchSpec, ledger: Ledger) -> None:
    """Raise ImagesChangedError where the images are others than those of the search."""
    best = best_trial(ledger.trials(), metric=spec.search.metric, choose_by=spec.search.choose_by)
    assert best is not None, "a finished search has a best trial"
    now = fingerprint_now(TrialConfig.model_validate(spec.config_of(best)))
    check_unchanged(now, known=ledger.notes.data.fingerprints["path"])
