"""The candidate of a search: its best confirmed recipe, packaged, asked about its test images once."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from search.ledger.files import checkpoint_folder, epoch_folder
from search.ledger.refits import refit_notes
from search.promotion.candidate import NoCandidateError, answer_test_once, package_best
from search.promotion.refit import Recipe, RefittedModel
from search.space.spec import SearchSpec
from trainable import TrialConfig, fit
from trainable.data.image_guard import ImagesChangedError
from trainable.data.packaged import PACKAGE
from trainable.errors import UserError
from trainable.serving.encoded import encoded_images
from trainable.serving.package import digest

METRIC = "val/balanced_accuracy"
RECIPES = [
    Recipe((2,), models=(RefittedModel(7, (0,), {METRIC: 0.7}), RefittedModel(8, (1,), {METRIC: 0.9}))),
    Recipe((1,), why_not="refit 2 failed: diverged"),
]


def test_a_recipe_is_its_trials_its_mean_and_its_best_seed():
    recipe = RECIPES[0]
    assert (recipe.as_text, recipe.is_soup) == ("trial 2", False)
    assert recipe.mean(METRIC) == pytest.approx(0.8)
    assert recipe.best_model(METRIC).seed == 8
    assert (Recipe((2, 0)).as_text, Recipe((2, 0)).is_soup) == ("soup of trials 2, 0", True)


def test_where_no_recipe_held_up_there_is_no_candidate(make_search):
    with pytest.raises(NoCandidateError, match="cells: no recipe held up on fresh seeds .refit 2 failed: diverged."):
        package_best(make_search(), recipes=RECIPES[1:])


@pytest.mark.slow
def test_it_is_asked_once_and_its_answers_are_read_back(make_search, served, tmp_path):
    search, model = make_search(), served("old")
    search.ledger.note(data={"fingerprint": model.fingerprint, "fingerprints": {"path": [model.fingerprint]}})
    package = model.folder / PACKAGE
    first = answer_test_once(search, recipes=RECIPES, package=package, folder=tmp_path / "model")
    assert (first.recipe, first.seed, first.digest) == ("trial 2", 8, digest(package))
    assert first.num_test_reads == 2
    assert refit_notes(search.refits).tested == (first.digest,)
    images = encoded_images(model.config, split="test")
    assert np.array_equal(first.test.probabilities, model.answer(images, classes=model.classes))
    path = search.refit_folder / f"test-{first.digest}.json"
    document = json.loads(path.read_text())
    assert document["labels"] == [model.classes.index(image.label) for image in images]
    path.write_text(json.dumps(document | {"predicted": np.eye(2)[document["labels"]].tolist()}))
    again = answer_test_once(search, recipes=RECIPES, package=package, folder=tmp_path / "again")
    assert again.test.chosen == [image.label for image in images]  # as was written, not as it answers
    assert again.num_test_reads == 2


@pytest.mark.slow
def test_other_images_than_those_of_the_search_are_not_asked(make_search, served, tmp_path):
    search, model = make_search(), served("old")
    search.ledger.note(data={"fingerprint": "f" * 32, "fingerprints": {"path": ["f" * 32]}})
    with pytest.raises(ImagesChangedError, match="data.path: the images have changed since this search began"):
        answer_test_once(search, recipes=RECIPES, package=model.folder / PACKAGE, folder=tmp_path / "model")
    assert refit_notes(search.refits).tested == ()


@pytest.fixture
def refitted(make_search, folders):
    """A search with one refit that was trained, and the recipe of it."""
    search = make_search({(2, 0): 0.9})
    document = search.spec.model_dump() | {
        "base": {
            "data.path": str(folders / "old"),
            "data.image_size": 32,
            "data.test_share": 0.4,
            "model.name": "test_resnet",
            "model.weights": "random",
            "train.batch_size": 9,
        }
    }
    search = replace(search, spec=SearchSpec.model_validate(document))
    config = TrialConfig.model_validate(search.refit_config(0))
    next(fit(config)).save(epoch_folder(checkpoint_folder(search.refit_folder, 0), 1))
    return search, [Recipe((2,), models=(RefittedModel(int(config.seed), (0,), {METRIC: 0.9}),))]


@pytest.mark.slow
def test_a_package_that_somebody_put_there_is_not_taken_as_our_own(refitted, tmp_path):
    search, recipes = refitted
    path = package_best(search, recipes=recipes)
    own = digest(path)
    written = (path / "weights.safetensors").stat().st_mtime_ns
    assert package_best(search, recipes=recipes) == path
    assert (path / "weights.safetensors").stat().st_mtime_ns == written  # made once
    for name in ("classifier.py", "decode.py", "layers.py", "weights.safetensors", "more.pyc"):
        with (path / name).open("ab") as file:
            file.write(b"#")
        assert package_best(search, recipes=recipes) == path
        assert digest(path) == own
    (path / "classifier.py").write_text("planted")
    search.refits.store_note(f"package {path.parent.name}", digest(path))  # as who may write both
    assert package_best(search, recipes=recipes) == path
    assert digest(path) == own


@pytest.mark.slow
def test_a_link_in_the_place_of_a_package_is_not_followed(refitted, tmp_path):
    search, recipes = refitted
    path = package_best(search, recipes=recipes)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    for place in (path, path.parent, path.parents[1]):
        shutil.rmtree(place)
        place.symlink_to(tmp_path / "victim")
        with pytest.raises(UserError, match="leads elsewhere by a link; delete that$"):
            package_best(search, recipes=recipes)
        place.unlink()
        place.mkdir()
    assert (tmp_path / "victim" / "file").exists()
