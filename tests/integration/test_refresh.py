"""A model kept the best while its images change, in three versions of them, killed between any steps."""

import json
import os
import random
import shutil
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from search.ledger.refreshes import Records
from search.report.page import write_page
from search.report.report import report_data

pytestmark = pytest.mark.slow

FIRST, LATER, SHIFTED = 50, 55, 75
SPACE = {
    "search": {"name": "kinds", "trials": 2, "seed": 1},
    "scheduler": {"min_epochs": 2, "max_epochs": 2},
    "resources": {"cpu": 1, "concurrency": 1},
    "soup": 0,
    # Some thirty test images: p of McNemar's test is 0.07 or 0.04, as the seed will have it, which the space's identity decides.
    "promote": {
        "confirm": {"top": 1, "seeds": 1},
        "max_ece": None,
        "old_tolerance": 0.2,
        "auto": True,
        "mcnemar_p": 0.1,
    },
    "refresh": {"settle_seconds": 0, "warm": 2, "fresh": 1},
    "base": {
        "data": {"path": "cells", "image_size": 48, "test_share": 0.35, "val_share": 0.2, "on_bad_image": "skip"},
        "train": {"batch_size": 8},
        "augment": {"strength": "none"},
        "model": {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"},
    },
    "vary": {"optimizer.lr": {"log": [2e-3, 3e-3]}, "freeze.depth": {"choice": [0.5, 0.6]}},
}


def cells(kind):
    """Files of whole cells of a kind of module."""
    data = Path(find_spec("elpv_dataset").origin).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return [data / name for name, share, one in lines if one == kind and float(share) == 0.0]


def add(place, *, begin, end, change=None):
    """The images of both kinds from number ``begin`` on, as another camera would show them where they change."""
    for kind in ("mono", "poly"):
        (place.folder / "cells" / kind).mkdir(parents=True, exist_ok=True)
        for path in cells(kind)[begin:end]:
            target = place.folder / "cells" / kind / path.name
            if change is None:
                shutil.copy(path, target)
            else:
                change(Image.open(path).convert("L")).save(target)


def third_version(place):
    """Darker images, and a class that shows no whole cell."""
    add(place, begin=LATER, end=SHIFTED, change=lambda image: image.point(lambda grey: grey // 2))
    (place.folder / "cells/close").mkdir()
    for kind in ("mono", "poly"):
        for path in cells(kind)[100:120]:
            Image.open(path).convert("L").crop((120, 120, 160, 160)).save(place.folder / "cells/close" / path.name)


def refreshed(place, *words, code):
    result = place.call("refresh", "space.yaml", *words)
    assert result.returncode == code, result.stdout + result.stderr
    (line,) = result.stdout.splitlines()
    return json.loads(line)


def copied(place, other):
    shutil.copytree(place.folder, other.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("images"))
    return other


def client(place):
    return MlflowClient(f"sqlite:///{place.folder}/mlflow.db")


def runs(place, kind):
    store = client(place)
    experiments = [one.experiment_id for one in store.search_experiments()]
    return store.search_runs(experiments, f"tags.`search.kind` = '{kind}'", order_by=["attributes.start_time ASC"])


def champion(place):
    return int(client(place).get_registered_model("kinds").aliases["champion"])


def records(place):
    return Records(place.folder / "searches/kinds").all()


def splits(place, fingerprint):
    from trainable.data.versions import read_version

    return read_version(Records(place.folder / "searches/kinds").version_file(fingerprint))


@pytest.fixture(scope="module")
def first(make_place):
    """The first version searched and promoted by hand, then refreshed; and what that said."""
    place = make_place()
    (place.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    add(place, begin=0, end=FIRST)
    place.told("run", "space.yaml")
    place.told("promote", "kinds")
    return place, refreshed(place, code=3)


@pytest.fixture(scope="module")
def second(first, make_place):
    """The same with a tenth more images of the same kind."""
    place = copied(first[0], make_place())
    add(place, begin=FIRST, end=LATER)
    return place, refreshed(place, code=0)


@pytest.fixture(scope="module")
def third(second, make_place):
    """The same with a shifted domain and a new class, and what refreshing it said."""
    place = copied(second[0], make_place())
    third_version(place)
    return place, refreshed(place, code=0)


@pytest.fixture(scope="module")
def killed(second, third, make_place):
    """The same in another place, killed at some moment, and what refreshing it again said."""
    killed = copied(second[0], make_place())
    third_version(killed)
    (name,) = third[1]["searches"]
    moments = {  # one a run of the tests: each costs a start of everything
        "in the search": lambda: killed.lines(name) >= random.randint(5, 25),
        "in the promotion": lambda: (killed.folder / "searches" / name / "refits").is_dir(),
        "after the promotion": lambda: records(killed)[-1].promotions,
        "before it is closed": lambda: records(killed)[-1].ended,
    }
    moment = random.choice(list(moments))
    print(f"killed {moment}")
    killed.kill_when(moments[moment], "refresh", "space.yaml")
    return killed, killed.call("refresh", "space.yaml")


def test_images_that_the_champion_was_trained_on_start_nothing(first):
    place, answer = first
    assert answer["decision"] == "skip"
    assert answer["reasons"] == ["search 'kinds' of this space on these images is finished"]
    assert answer["searches"] == []
    assert champion(place) == 1


def test_the_same_images_are_refreshed_once(first):
    place, answer = first
    before = [path.read_bytes() for path in sorted((place.folder / "searches").rglob("*.json"))]
    again = refreshed(place, code=3)
    assert again["reasons"] == ["refresh 1 of these images is done, it decided: skip"]
    assert again["key"] == answer["key"]
    assert [path.read_bytes() for path in sorted((place.folder / "searches").rglob("*.json"))] == before
    assert len(runs(place, "refresh")) == 1


def test_a_renamed_and_a_touched_image_start_nothing(first, make_place):
    place = copied(first[0], make_place())
    paths = sorted((place.folder / "cells/mono").iterdir())
    paths[0].rename(paths[0].with_name("renamed.png"))
    os.utime(paths[1])
    answer = refreshed(place, code=3)
    assert answer["reasons"] == ["refresh 1 of these images is done, it decided: skip"]


def test_a_few_more_of_the_same_only_ask_the_champion(second):
    place, answer = second
    assert answer["decision"] == "re-evaluate"
    assert answer["difference"] == "100 -> 110 images, added 10 (5 mono, 5 poly)"
    assert [rung["kind"] for rung in records(place)[-1].rungs] == ["drift", "champion", "re-evaluate"]
    assert champion(place) == 1
    assert not list((place.folder / "searches").glob("kinds.*"))


def test_new_classes_start_a_warm_search_whose_best_passes_the_gate(third):
    place, answer = third
    assert answer["decision"] == "warm search"
    assert answer["reasons"] == ["new classes 'close'"]
    (promotion,) = answer["promotions"]
    assert promotion["outcome"] == "promoted", promotion["reasons"]
    assert champion(place) == 2
    (name,) = answer["searches"]
    ledger = place.ledger(name)
    assert [trial.origin for trial in ledger.trials()] == ["try_first", "try_first", "random"]
    assert ledger.notes.warm_start.whose[0] == "the champion, version 1"
    assert ledger.trials()[0].params != ledger.trials()[1].params
    found = report_data(place.folder / "searches" / name)["warm_start"]["values"]
    assert (found["warm"]["trials"], found["random"]["trials"]) == (2, 1)


def test_every_image_keeps_its_split_for_ever(third):
    place, _ = third
    versions = [splits(place, record.fingerprint) for record in records(place)]
    for before, after in pairwise(versions):
        known = {entry.sample_id: entry.split for entry in after.entries}
        assert all(known[entry.sample_id] == entry.split for entry in before.entries)
        assert before.ids("test") < after.ids("test")


@pytest.mark.long
def test_killed_between_any_steps_a_refresh_ends_as_the_unbroken_one(third, killed):
    (place, answer), (killed, result) = third, killed
    assert result.returncode == 0, result.stderr
    one, other = (
        {key: value for key, value in records(found)[-1].as_dict().items() if key not in ("began", "ended")}
        for found in (place, killed)
    )

    def moved(text):
        """The same in the other place; a package says where its data lie, so that its digest is another."""
        candidates = [record["after"]["candidate"] for record in (other, one)]
        return json.loads(text.replace(str(killed.folder), str(place.folder)).replace(*candidates))

    assert moved(result.stdout) == answer
    assert moved(json.dumps(other)) == json.loads(json.dumps(one))
    (name,) = answer["searches"]
    told = [[(t.params, t.state, t.best("val/loss")) for t in found.ledger(name).trials()] for found in (place, killed)]
    assert told[0] == told[1]
    assert champion(killed) == champion(place)
    assert len(runs(killed, "refresh")) == len(runs(place, "refresh")) == 3


def test_every_decision_is_a_run_in_mlflow(third):
    place, answer = third
    told = runs(place, "refresh")
    assert [run.data.tags["refresh.decision"] for run in told] == ["skip", "re-evaluate", "warm search"]
    assert all(run.info.status == "FINISHED" for run in told)
    assert told[1].data.metrics["refresh/champion_value"] > 0.5
    assert told[2].data.tags["refresh.searches"] == answer["searches"][0]
    assert {run.info.experiment_id for run in told} == {run.info.experiment_id for run in runs(place, "study")}


def test_the_report_shows_the_history_with_every_frozen_test_set(third):
    place, _ = third
    rows = report_data(place.folder / "searches/kinds")["history"]
    assert [row["decision"] for row in rows] == ["skip", "re-evaluate", "warm search"]
    assert [row["champion"] for row in rows] == [1, 1, 2]
    assert [len(row["scores"]) for row in rows] == [1, 2, 3]
    whole = [score["num_images"] == score["of"] for score in rows[2]["scores"].values()]
    assert whole == [True, True, True]
    page = write_page(place.folder / "searches/kinds").read_text()
    assert "History of the model" in page
    assert "new classes &#x27;close&#x27;" in page


def test_scores_of_another_model_are_not_taken_for_the_champions(first, make_place):
    place = copied(first[0], make_place())
    (record,) = records(place)
    scores = {name: score | {"value": 0.1234} for name, score in record.scores.items()}
    other = replace(record.after, candidate="another")  # as where the registry was begun anew
    Records(place.folder / "searches/kinds").save(record, after=other, scores=scores)
    add(place, begin=FIRST, end=LATER)
    refreshed(place, code=0)
    assert records(place)[-1].scores[record.fingerprint] == record.scores[record.fingerprint]


def test_a_relabelled_image_is_told_and_not_read_as_new(second, make_place):
    place = copied(second[0], make_place())
    path = next((place.folder / "cells/mono").iterdir())
    path.rename(place.folder / "cells/poly" / path.name)
    answer = refreshed(place, code=0)
    assert answer["difference"] == "100 -> 110 images, added 10 (5 mono, 5 poly), relabelled 1 (1 mono -> poly)"


def test_another_space_is_searched_in_full_but_not_before_its_time(third, make_place):
    place = copied(third[0], make_place())
    changed = SPACE | {"vary": {"optimizer.lr": {"log": [1e-3, 3e-3]}}}
    (place.folder / "space.yaml").write_text(yaml.safe_dump(changed))
    for wait, reason in (
        ("refresh.cooldown_hours=1000", "the last search ended at "),
        ("refresh.gpu_hours_per_month=1e-9", "this month's searches took "),
    ):
        answer = refreshed(place, "--set", wait, code=3)
        assert answer["decision"] == "wait"
        assert answer["reasons"][0].startswith(reason)
        assert answer["retry_after_seconds"] > 0
    assert records(place)[-1].decision["kind"] == "full search"
    assert records(place)[-1].searches == ()


@pytest.mark.long
def test_many_more_of_the_same_train_the_champions_configuration_again(second, make_place):
    place = copied(second[0], make_place())
    add(place, begin=LATER, end=LATER + 8)
    answer = refreshed(place, "--set", "refresh.small_share=0.1", "--set", "promote.auto=false", code=0)
    assert answer["decision"] == "refit"
    (name,) = answer["searches"]
    (trial,) = place.ledger(name).trials()
    assert trial.params in [one.params for one in place.ledger("kinds").trials()]
    assert (answer["promotions"], champion(place)) == ([], 1)


def test_half_copied_images_are_waited_for(second, make_place):
    place = copied(second[0], make_place())
    add(place, begin=90, end=91)
    answer = refreshed(place, "--set", "refresh.settle_seconds=500", code=3)
    assert answer["decision"] == "wait"
    assert 400 < answer["retry_after_seconds"] <= 500
    answer = refreshed(place, "--set", "refresh.marker=_SUCCESS", code=3)
    assert answer["reasons"] == ["there is no _SUCCESS beside the images (refresh.marker): they count as half-copied"]
    assert len(records(place)) == 2


def test_two_at_once_are_one(second):
    from search.ledger.lease import lease

    place, _ = second
    add(place, begin=92, end=93)
    with lease(place.folder / "searches/kinds/refresh"):
        answer = refreshed(place, code=3)
    assert answer["decision"] == "busy"


def test_new_images_that_cannot_be_decoded_are_named(second, make_place):
    place = copied(second[0], make_place())
    (place.folder / "cells/mono/broken.png").write_bytes(b"no image")
    result = place.call("refresh", "space.yaml", "--set", "data.on_bad_image=error")
    assert result.returncode == 2
    assert "data.path: 1 image that cannot be decoded, such as 'mono/broken.png'; `data.on_bad_image" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    answer = refreshed(place, code=0)
    assert answer["decision"] == "re-evaluate"
    assert "1 bad images (mono/broken.png)" in answer["difference"]
