"""A search over adaptation methods and weights, through the command line."""

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from search.space.loading import load
from search.space.preflight import check_techniques
from trainable.errors import UserError

pytestmark = pytest.mark.slow

EACH = 14  # images of a module type and class
SPACE = {
    "search": {
        "name": "kinds",
        "trials": 3,
        "seed": 3,
        "metric": "target/snd",
        "choose_by": ["target/snd", "val/balanced_accuracy"],
    },
    "scheduler": {"min_epochs": 1, "max_epochs": 2, "reduction": 2, "finalists": 2},
    "resources": {"cpu": 1, "concurrency": 1},
    "baselines": ["source_only"],
    "soup": 0,
    "base": {
        "data": {"path": "kinds.csv", "domain_column": "kind", "source": ["mono"], "target": "poly", "image_size": 32},
        "model": {"name": "test_resnet", "weights": "random"},
        "train": {"batch_size": 9},
    },
    "vary": {
        "adapt.method": {"choice": ["none", "dann", "mmd", "adabn"]},
        "adapt.weight": {"log": [0.1, 2.0], "when": {"adapt.method": ["dann", "mmd"]}},
        "optimizer.lr": {"log": [1e-3, 1e-2]},
    },
    "try_first": [
        {"adapt.method": "dann", "adapt.weight": 0.5, "optimizer.lr": 3e-3},
        {"adapt.method": "adabn", "optimizer.lr": 3e-3},
    ],
}


def cells():
    """Name, class and module type of some real solar cells."""
    data = Path(find_spec("elpv_dataset").origin).parent / "data"
    lines = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    for kind in ("mono", "poly"):
        for probability, label in ((0.0, "functional"), (1.0, "defective")):
            found = [name for name, p, one in lines if one == kind and float(p) == probability][:EACH]
            yield from ((str(data / name), label, kind) for name in found)


def write(place, *, flipped=False, **changes):
    """The space and its CSV; ``flipped`` gives every image of the target the other label."""
    other = {"functional": "defective", "defective": "functional"}
    with (place.folder / "kinds.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "kind"])
        writer.writerows((n, other[c] if flipped and k == "poly" else c, k) for n, c, k in cells())
    space = {
        name: values | changes.get(name, {}) if isinstance(values, dict) else values for name, values in SPACE.items()
    }
    (place.folder / "space.yaml").write_text(yaml.safe_dump(space))
    return place


@pytest.fixture(scope="module")
def unbroken(make_place):
    place = write(make_place())
    (place.folder / "output.txt").write_text(place.told("run", "space.yaml"))
    return place


def results(place):
    """Every number of a search but how long things took."""
    ledger = place.ledger("kinds")
    trials = [
        (
            trial.number,
            dict(trial.params),
            trial.state,
            [{n: v for n, v in epoch.metrics.items() if not n.startswith("usage/")} for epoch in trial.epochs],
        )
        for trial in ledger.trials()
    ]
    notes = {name: getattr(ledger.notes, name) for name in ("baselines", "test", "domains", "data")}
    return trials, notes, (place.folder / "searches/kinds/domains.json").read_bytes()


def test_both_losses_of_every_adapting_trial_are_in_the_ledger_and_in_mlflow(unbroken):
    client = MlflowClient(f"sqlite:///{unbroken.folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("kinds").experiment_id])
    ids = {run.data.tags.get("search.trial"): run.info.run_id for run in runs}
    trials = [trial for trial in unbroken.ledger("kinds").trials() if trial.params["adapt.method"] in ("dann", "mmd")]
    assert trials
    for trial in trials:
        for name in ("train/source_loss", "train/target_loss", "target/snd", "target/a_distance", "target/mmd"):
            assert set(trial.values(name)) == set(trial.values("train/loss"))
            logged = client.get_metric_history(ids[str(trial.number)], name)
            assert [point.value for point in logged] == pytest.approx(list(trial.values(name).values()), rel=1e-4)


def test_the_report_compares_selectors_and_the_source_alone(unbroken):
    data = unbroken.read("report", "kinds")
    finished = [row["trial"] for row in data["leaderboard"] if row["state"] == "COMPLETE"]
    assert data["best_trial"] in finished
    judgement = data["adaptation"]
    assert not judgement["oracle"]
    assert {"target/snd", "target/dev", "val/balanced_accuracy"} <= judgement["choices"].keys()
    assert set(judgement["gains"]) == {f"target/{n}" for n in ("snd", "entropy", "infomax", "bnm", "mcc", "iwv", "dev")}
    text = (unbroken.folder / "output.txt").read_text()
    assert "selector target/dev: would choose trial " in text
    assert "beside source-only: better by " in text
    assert "ORACLE" not in text
    assert "oracle" not in str(data["test"])
    page = (unbroken.folder / "searches/kinds/report.html").read_text()
    assert "Domains before and after (t-SNE)" in page


def test_killed_and_with_every_label_of_the_target_flipped_no_number_changes(unbroken, make_place):
    place = write(make_place(), flipped=True)
    place.kill_when(lambda: place.lines("kinds") >= 20, "run", "space.yaml")
    place.told("resume", "kinds")
    assert results(place) == results(unbroken)


def test_an_oracle_is_marked_everywhere(make_place):
    place = make_place()
    data = SPACE["base"]["data"] | {"oracle": True}
    search = {"trials": 1, "metric": "oracle/balanced_accuracy", "choose_by": []}
    write(place, search=search, base={"data": data})
    text = place.told("run", "space.yaml", "--set", "baselines=[]")
    assert text.count("ORACLE: the target's labels were read in this search") == 2
    assert "oracle_test/accuracy" in text
    assert place.ledger("kinds").notes.data.oracle is True
    client = MlflowClient(f"sqlite:///{place.folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("kinds").experiment_id])
    assert len(runs) == 2
    assert {run.data.tags["search.oracle"] for run in runs} == {"true"}
    assert place.read("report", "kinds")["adaptation"]["choices"]["oracle/balanced_accuracy"]["truth"] is not None


MISTAKES = {
    "no target": (
        ["search.metric=val/accuracy", "search.choose_by=[]", "baselines=[]", "data.target=null", "data.source=[]"],
        "vary.adapt.method: 'dann' needs data.target, the domain to adapt to",
    ),
    "a source alone": (["data.target=null"], "base.data.source: needs data.target; without one give data.path alone"),
    "a selector without a target": (
        ["data.target=null", "data.source=[]", "adapt.method=none"],
        "search.metric: 'target/snd' needs data.target",
    ),
    "labels without an oracle": (
        ["search.metric=oracle/accuracy"],
        "search.metric: 'oracle/accuracy' reads the target's labels; data.oracle: true allows that and marks every result",
    ),
    "norms of a backbone without": (
        ["model.name=convnext_atto"],
        "adapt.method: 'adabn' needs batch norms, convnext_atto has none",
    ),
    "a frozen stage": (
        ["adapt.layer=stage1", "freeze.depth=stage2"],
        "adapt.layer: 'stage1' of test_resnet is frozen, so nothing can be aligned in it",
    ),
    "two tasks in one search": (
        ["vary.data.oracle={choice: [true, false]}"],
        "vary.data.oracle: is the same for the whole search; give it in base",
    ),
    "a reference arm without a target": (
        ["data.target=null", "data.source=[]", "search.metric=val/loss", "search.choose_by=[]", "adapt.method=none"],
        "baselines: source_only needs base.data.target, the domain to adapt to",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case, tmp_path):
    overrides, line = MISTAKES[case]
    space = {name: value for name, value in SPACE.items() if name != "try_first"}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    with pytest.raises(UserError) as caught:
        check_techniques(load(tmp_path / "space.yaml", overrides))
    assert line in str(caught.value)


def test_a_domain_that_is_not_there_is_one_line_before_anything_runs(make_place):
    place = write(make_place())
    result = place.call("run", "space.yaml", "--set", "data.target=ploy")
    assert result.returncode == 2
    assert result.stderr.strip() == "error: data.target: there is no domain 'ploy'; did you mean 'poly'?"
    assert not list((place.folder / "searches").glob("*/ledger.journal"))
