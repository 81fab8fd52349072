"""A finished search whose refits are written by hand; served models, trained shortly on real cells."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from search.ledger import ledger as ledgers
from search.ledger.refits import MOST_SEED, FinishedSearch, open_refits
from search.promotion.candidate import Candidate
from search.promotion.evidence import Answers
from search.promotion.gate import Evidence, gate
from search.promotion.packaged import PackagedModel, open_packaged
from search.promotion.promote import Promotion
from search.promotion.refit import Recipe, RefittedModel
from search.space.dimension import Number
from search.space.loading import load
from search.space.space import make_space
from search.tracking.model_files import save_model
from trainable import TrialConfig, fit
from trainable.serving.package import package
from trainable.statistics.comparison import Interval, Judged

METRIC = "val/balanced_accuracy"
RATES = (1e-3, 2e-3, 3e-3)
TEXT = """
search: {{name: cells, trials: 3, seed: {seed}}}
scheduler: {{max_epochs: 3}}
promote: {{confirm: {{top: {top}, seeds: {seeds}}}}}
base: {{data: {{path: images}}}}
vary: {{optimizer.lr: {{log: [1e-4, 1e-2]}}}}
"""


@pytest.fixture(scope="session")
def folders(tmp_path_factory, cells):
    """Real cells in two classes; the same and some more; the same and a class more."""
    root = tmp_path_factory.mktemp("data")
    for name, count in (("old", 30), ("grown", 40), ("wider", 30)):
        for index, path in enumerate(cells[:count]):
            folder = root / name / ("defective" if index % 3 == 0 else "functional")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    (root / "wider" / "unknown").mkdir()
    for path in cells[30:]:
        shutil.copy(path, root / "wider" / "unknown")
    return root


@pytest.fixture(scope="session")
def served(folders, tmp_path_factory):
    """Makes a served model, trained shortly on one of the folders."""
    made = {}

    def make(data, *, split_seed=0, test_share=0.4, lr=1e-3):
        key = (data, split_seed, test_share, lr)
        if key not in made:
            root = tmp_path_factory.mktemp("model")
            config = TrialConfig.model_validate(
                {
                    "data": {
                        "path": str(folders / data),
                        "image_size": 32,
                        "split_seed": split_seed,
                        "test_share": test_share,
                    },
                    "model": {"name": "resnet10t", "weights": "random"},
                    "optimizer": {"lr": lr},
                    "train": {"epochs": 1, "batch_size": 9},
                }
            )
            for epoch in fit(config):
                epoch.save(root / "checkpoint")
            package(config, folder=root / "package", checkpoint=root / "checkpoint")
            save_model(root / "package", folder=root / "model")
            made[key] = open_packaged(root / "model", root=root)
        return made[key]

    return make


@pytest.fixture
def make_spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*, top=2, seeds=2, seed=0):
        (tmp_path / "space.yaml").write_text(TEXT.format(top=top, seeds=seeds, seed=seed))
        return load("space.yaml")

    return make


@pytest.fixture
def ledger(tmp_path, record):
    """Three ended trials, each better than the one before."""
    ledger = ledgers.create(
        tmp_path,
        name="cells",
        storage=None,
        space=make_space({"optimizer.lr": Number(low=1e-4, high=1e-2, log=True)}),
        metric=METRIC,
        notes={"metric": METRIC},
    )
    for rate, value in zip(RATES, (0.7, 0.8, 0.9), strict=True):
        record(ledger, {"optimizer.lr": rate}, {METRIC: value})
    ledger.note(test={"trial": 2, "soup": None, "reads": 1})
    return ledger


@pytest.fixture
def record():
    """Writes an ended trial of two epochs into a ledger, and gives its number."""
    known = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "seed": IntDistribution(0, MOST_SEED)}

    def write(ledger, params, metrics, *, state="COMPLETE"):
        distributions = {path: known[path] for path in params}
        number = ledger.start(encoded=params, distributions=distributions, target=3, origin="try_first")
        ledger.record(number, epoch=1, metrics=metrics)
        ledger.record(number, epoch=2, metrics={name: value / 2 for name, value in metrics.items()}, ended="last epoch")
        ledger.end(number, state=state, reason="diverged" if state == "FAILED" else "last epoch")
        return number

    return write


@pytest.fixture
def make_search(tmp_path, ledger, make_spec, record):
    """Opens the search with its refits as if they had been trained: ``values`` by trial and seed's place."""

    def make(values=(), **promote):
        spec = make_spec(**promote)
        refits = open_refits(spec, folder=tmp_path)
        search = FinishedSearch(spec=spec, ledger=ledger, refits=refits, folder=tmp_path)
        search.refit_folder.mkdir(exist_ok=True)
        for (trial, place), value in dict(values).items():
            params = {**ledger.trial(trial).params, "seed": search.fresh_seeds()[place]}
            state = "COMPLETE" if value is not None else "FAILED"
            record(refits, params, {METRIC: 0.1 if value is None else value}, state=state)
        return search

    return make


@pytest.fixture
def promotion(make_search):
    """A promoted candidate with numbers that were made up."""
    description = {
        "classes": ["crack", "fine"],
        "fingerprint": "ffff",
        "counts": {"train": {"crack": 6, "fine": 7}, "val": {"crack": 2, "fine": 2}, "test": {"crack": 3, "fine": 3}},
        "config": {"data": {"target": None, "oracle": False}},
        "architecture": "resnet10t",
        "input": {"channels": 3, "stored_side": 36, "interpolation": "bilinear", "size": 32},
    }
    model = PackagedModel(folder=Path(), model=None, description=description, splits={}, root=Path())
    candidate = Candidate(
        search=make_search(),
        recipes=[
            Recipe((2,), models=(RefittedModel(7, (0,), {METRIC: 0.7}), RefittedModel(8, (1,), {METRIC: 0.9}))),
            Recipe((1,), why_not="refit 2 failed: diverged"),
        ],
        package=Path("refits/packages/a/package"),
        digest="d" * 32,
        test=Answers(model=model, images=(), classes=("crack", "fine"), probabilities=np.zeros((0, 2))),
        num_test_reads=4,
    )
    crack = {"recall": 0.6, "recall_low": 0.3, "recall_high": 0.8, "precision": 0.5, "f1": 0.545, "count": 10}
    fine = {"recall": 0.95, "recall_low": 0.9, "recall_high": 0.98, "precision": 0.96, "f1": 0.955, "count": 90}
    test = Judged(
        num_images=100,
        metrics={"balanced_accuracy": Interval(0.9, 0.85, 0.95)},
        per_class={"crack": crack, "fine": fine},
        ece=0.08,
    )
    evidence = Evidence(test=test, chance=0.5, latency_ms=12.0, size_mb=20.0)
    return Promotion(
        candidate=candidate,
        evidence=evidence,
        verdict=gate(evidence, rule=candidate.search.spec.promote),
        outcome="promoted",
        name="cells",
        version=3,
        champion=None,
    )
