"""What a search's trials are compared with."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.engine.sampling import propose, sampling_rule
from search.ledger.files import epoch_folder
from search.ledger.ledger import Ledger
from search.space.spec import SearchSpec
from search.space.values import Value
from search.tune.place import Place
from search.tune.submit import submit

FOLDER = "baselines"
OLD_FOLDER = "arms"  # its name in searches begun before baselines were called so
TRIALS = ("linear_probe", "zero_shot")
RECIPES = ("scratch", "bit_hyperrule", "source_only")  # those that are trained
# How the names under which each of `baselines` is found in the ledger begin.
RESULTS = {
    "stage_probes": "probe_",
    **{name: name for name in RECIPES},
}


def begin_baselines(
    spec: SearchSpec, ledger: Ledger, *, params: Mapping[str, Value], folder: Path, place: Place
) -> list[Callable[[], dict[str, Any]]]:
    """Start the ``baselines`` whose scores are not in the ledger; each call waits for some, by name.

    The linear probe and zero-shot are not among them: they are trials (:func:`search.run.probes.begin_probes`).
    ``params`` is the point of the space that gives them data and backbone; ``place`` is what a worker occupies.
    """
    scores = ledger.notes.baselines
    config = spec.trial_config(params)
    waiting = []
    for name in spec.baselines:
        if name in TRIALS or any(score_name.startswith(RESULTS[name]) for score_name in scores):
            continue
        if name == "stage_probes":
            waiting.append(submit("probe_scores", config, kinds=spec.probes, place=place))
        else:
            checkpoints = str(_checkpoints(folder) / name)
            waiting.append(submit("baseline_score", config, recipe=name, folder=checkpoints, place=place))
    return waiting


def any_params(spec: SearchSpec) -> Mapping[str, Any]:
    """Some point of the space, always the same one."""
    proposal = propose([], space=spec.space, rule=sampling_rule(spec))
    return proposal.params if proposal else {}


def recipe_checkpoint(folder: Path, name: str, *, epoch: int | None) -> Path | None:
    """The checkpoint of a trained baseline's best epoch, if it is still there."""
    path = epoch_folder(_checkpoints(folder) / name, epoch or 0)
    return path if path.is_dir() else None


def _checkpoints(folder: Path) -> Path:
    """Where baselines that are trained keep their checkpoints; those of an older search go on where they are."""
    old = folder / OLD_FOLDER
    return old.resolve() if old.is_dir() else (folder / FOLDER).resolve()
