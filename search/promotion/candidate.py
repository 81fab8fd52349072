"""The model that a search offers: the best of its confirmed recipes, packaged and asked about its test images once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.ledger.refits import CandidateNote, FinishedSearch, note_candidate, note_package, note_tested, refit_notes
from search.promotion.evidence import Answers, answer
from search.promotion.packaged import PackagedModel, open_packaged
from search.promotion.refit import Recipe, RefittedModel
from search.space.final import finish_steps
from search.space.sections import STEPS
from search.space.spec import BACKBONE, SearchSpec
from search.tracking.model_files import save_model
from trainable.atomic import write_beside
from trainable.config.trial import TrialConfig
from trainable.data.image_guard import check_held, held_to
from trainable.data.packaged import PACKAGE
from trainable.errors import UserError
from trainable.json_text import to_json
from trainable.serving.encoded import encoded_images
from trainable.serving.package import digest, has_own_code, package
from trainable.training.checkpoint import OPTIMIZER


class NoCandidateError(UserError):
    """A search has nothing that could be promoted."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The model that is judged: where it lies, what it is called by, what it makes of its test images.

    ``recipes`` are all that were confirmed, its own first; ``digest`` is that of its package; ``num_test_reads`` says how often
    the search and its promotions have read the test split, ``num_known`` how many of its images are in train or val as
    well and not asked about.
    """

    search: FinishedSearch
    recipes: Sequence[Recipe]
    package: Path
    digest: str
    test: Answers
    num_test_reads: int
    num_known: int = 0

    @property
    def seed(self) -> int:
        """The seed that it was trained with."""
        return self.recipes[0].best_model(self.search.metric).seed

    @property
    def recipe(self) -> str:
        """What it was trained by, in words."""
        return self.recipes[0].as_text

    @property
    def model(self) -> PackagedModel:
        """The model as it is served."""
        return self.test.model


def package_best(search: FinishedSearch, *, recipes: Sequence[Recipe]) -> Path:
    """Package the best model of the best recipe, if that is not done yet, and note that it was confirmed.

    A package that lies there is taken where its digest is the one noted when it was made and its code is that of the project.

    Raises NoCandidateError where no recipe held up, UserError where its weights are gone and for a link in the package's place.
    """
    best = recipes[0]
    if best.why_not:
        raise NoCandidateError(f"{search.spec.search.name}: no recipe held up on fresh seeds ({best.why_not})")
    model = best.best_model(search.metric)
    config = search.refit_config(model.refits[0])
    weights = _weights(model, recipe=best, search=search)
    steps, coverage = finish_steps(search.spec), search.spec.promote.coverage
    asked = {"finish": steps} if coverage is None else {"finish": steps, "coverage": coverage}
    key = _content_key({**_without_place(config, spec=search.spec), **asked}, weights=weights)
    path = search.refit_folder.resolve() / "packages" / key / PACKAGE.name
    if path.resolve() != path:
        raise UserError(f"{path}: leads elsewhere by a link; delete that")
    if not _is_known(path, digest_noted=refit_notes(search.refits).packages.get(key)):
        with held_to(search.fingerprints):
            package(TrialConfig.model_validate(config), folder=path, finish=steps, coverage=coverage, **weights)
        note_package(search.refits, key, digest=digest(path))
    place = str(path.relative_to(search.folder.resolve()))
    note_candidate(search.refits, CandidateNote(package=place, recipe=best.as_text))
    return path


def answer_test_once(search: FinishedSearch, *, recipes: Sequence[Recipe], package: Path, folder: Path) -> Candidate:
    """Ask the packaged model about its test images, as it is served from ``folder``, which must not exist.

    What it answered when it was first asked is read back.
    """
    save_model(package, folder=folder)
    model, name = open_packaged(folder, root=Path.cwd()), digest(package)
    with held_to(search.fingerprints):
        check_held(model.fingerprint)
        every = encoded_images(model.config, split=model.test_split)
        images = [image for image in every if not model.was_trained_on(image.sample_id)]
        if not images:
            raise NoCandidateError(f"{search.spec.search.name}: every test image is in train or val as well")
        path = search.refit_folder / f"test-{name}.json"
        if not path.is_file() or len(_predicted(path)) != len(images):
            _write_answers(answer(model, images=images), path=path)
    tested = refit_notes(search.refits).tested
    if name not in tested:
        note_tested(search.refits, (*tested, name))
    test = Answers(model=model, images=images, classes=model.classes, probabilities=_predicted(path))
    return Candidate(
        search=search,
        recipes=recipes,
        package=package,
        digest=name,
        test=test,
        num_test_reads=search.num_test_reads,
        num_known=len(every) - len(images),
    )


def _predicted(path: Path) -> NDArray[np.float64]:
    return np.array(json.loads(path.read_text())["predicted"])


def _is_known(path: Path, *, digest_noted: str | None) -> bool:
    """Whether a package is the one that was made here: its code will be run, and registered for everyone."""
    return path.is_dir() and digest(path) == digest_noted and has_own_code(path)


def _weights(model: RefittedModel, *, recipe: Recipe, search: FinishedSearch) -> dict[str, Path]:
    """Where the weights of a model are: its ``checkpoint`` or its ``soup``. Raises UserError where they are gone."""
    if recipe.is_soup:
        return {"soup": search.soup_path(seed=model.seed)}
    return {"checkpoint": search.refit_checkpoint(model.refits[0])}


def _without_place(config: Mapping[str, Any], *, spec: SearchSpec) -> dict[str, Any]:
    """Name the weights of a step before the search by the step: wherever the search lies the configuration is the same."""
    weights = {str(spec.step_folder(step) / BACKBONE): step for step in STEPS}
    model = config.get("model", {})
    return {**config, "model": {**model, "weights": weights.get(model.get("weights"), model.get("weights"))}}


def _content_key(config: Mapping[str, Any], *, weights: Mapping[str, Path]) -> str:
    """Hash what a package is made of: refits of other searches, or trained anew, have other packages."""
    content = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in weights.values():
        for file in sorted(path.glob("*")) if path.is_dir() else [path]:
            if file.name != OPTIMIZER:
                content.update(file.read_bytes())
    return content.hexdigest()[:16]


def _write_answers(answers: Answers, *, path: Path) -> None:
    document = {"labels": answers.labels.tolist(), "predicted": answers.probabilities.tolist()}
    with write_beside(path) as file:
        file.write(to_json(document).encode())
