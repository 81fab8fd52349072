"""What a search says about its domains, from records alone."""

import json
from datetime import UTC, datetime

import pytest

from search.ledger.files import PICTURE
from search.ledger.notes import BaselineScore, SearchNotes
from search.ledger.trials import EpochRecord, Trial, best_trial, leaders
from search.report.domains import domain_figures, judge_domains, judgement_lines
from search.space.spec import SearchSpec

SELECTORS = {  # one value a trial, at both of its epochs
    "target/snd": [4.0, 5.0, 3.0],
    "target/entropy": [0.3, 0.2, 0.1],
    "target/infomax": [0.1, 0.3, 0.2],
    "target/bnm": [0.7, 0.8, 0.9],
    "target/mcc": [0.3, 0.2, 0.4],
    "target/iwv": [0.6, 0.4, 0.5],
    "target/dev": [0.6, 0.5, 0.4],
    "val/balanced_accuracy": [0.9, 0.7, 0.8],
    "oracle/balanced_accuracy": [0.6, 0.8, 0.7],
}


def trial(number, state="COMPLETE", *, blind=False, **changes):
    values = {name: of_trial[number] for name, of_trial in SELECTORS.items()} | changes
    values = {name: value for name, value in values.items() if not (blind and name.startswith("oracle/"))}
    epochs = tuple(EpochRecord(number=epoch, metrics=values, recorded=datetime.now(UTC)) for epoch in (1, 2))
    return Trial(number=number, params={}, state=state, epochs=epochs, target=2, origin="random")


def make_spec(*, oracle=False, metric="target/snd", choose_by=()):
    return SearchSpec.model_validate(
        {
            "search": {"name": "one", "trials": 3, "metric": metric, "choose_by": list(choose_by)},
            "scheduler": {"max_epochs": 2, "min_epochs": 1},
            "base": {"data": {"format": "elpv", "target": "poly", "oracle": oracle}},
        }
    )


TRIALS = [trial(number) for number in range(3)]


def source_only(**changes):
    values = {name: of_trial[1] for name, of_trial in SELECTORS.items()}
    return SearchNotes(baselines={"source_only": BaselineScore(measured=values | changes)})


def test_the_best_is_the_metrics_own_without_other_judges():
    assert best_trial(TRIALS, metric="target/snd").number == 1
    assert best_trial(TRIALS, metric="target/entropy").number == 2


def test_ranks_of_several_metrics_choose_among_finished_trials():
    judges = ["target/entropy", "target/dev", "val/balanced_accuracy"]  # ranks 3 3 1, 2 2 3, 1 1 2
    ordered = leaders(TRIALS, metric="target/snd", choose_by=judges)
    assert [one.number for one in ordered] == [2, 1, 0]  # 7/3 twice: the better by the metric first
    stopped = [trial(0), trial(1), trial(2, "PRUNED")]
    assert [one.number for one in leaders(stopped, metric="target/snd", choose_by=judges)] == [1, 0, 2]


def test_a_failed_trial_is_no_candidate_and_an_unmeasured_metric_is_the_worst():
    failed = [trial(0), trial(1, "FAILED"), trial(2)]
    assert best_trial(failed, metric="target/snd").number == 0
    unmeasured = [trial(0), trial(1), trial(2, **{"target/dev": float("nan")})]
    assert best_trial(unmeasured, metric="target/snd", choose_by=["target/dev"]).number == 1


def test_without_a_finished_trial_the_metric_chooses():
    stopped = [trial(number, "PRUNED") for number in range(3)]
    assert best_trial(stopped, metric="target/snd", choose_by=["target/dev"]).number == 1


def test_each_selector_says_which_trial_it_would_choose():
    judgement = judge_domains(TRIALS, spec=make_spec(), notes=SearchNotes())
    choices = {name: choice["trial"] for name, choice in judgement["choices"].items()}
    assert choices == {
        "target/snd": 1,
        "target/entropy": 2,
        "target/infomax": 1,
        "target/bnm": 2,
        "target/mcc": 1,
        "target/iwv": 1,
        "target/dev": 2,
        "val/balanced_accuracy": 0,
    }
    assert judgement["agreement"]["target/snd ~ val/balanced_accuracy"] == pytest.approx(-1 / 3)
    assert judgement["gains"] is None


def test_only_an_oracles_report_holds_the_truth():
    trials = [trial(number, blind=True) for number in range(3)]
    blind = judgement_lines(judge_domains(trials, spec=make_spec(), notes=source_only()))
    assert not any("oracle" in line.lower() for line in blind)
    lines = judgement_lines(judge_domains(TRIALS, spec=make_spec(oracle=True), notes=source_only()))
    assert lines[0].startswith("ORACLE: ")
    assert "selector target/entropy: would choose trial 2, oracle/balanced_accuracy 0.7000" in lines
    assert "agreement target/snd ~ oracle/balanced_accuracy: τ +0.33" in lines
    assert "agreement target/infomax ~ oracle/balanced_accuracy: τ +1.00" in lines


def test_source_only_better_by_what_decided_is_a_warning():
    worse = judgement_lines(judge_domains(TRIALS, spec=make_spec(), notes=source_only(**{"target/snd": 6.0})))
    assert any(line.startswith("warning: negative transfer, source-only is better by target/snd;") for line in worse)
    fine = judgement_lines(judge_domains(TRIALS, spec=make_spec(), notes=source_only(**{"target/dev": 0.1})))
    assert "beside source-only: better by 6 of 7 selectors" in fine
    assert not any("warning" in line for line in fine)


def test_where_the_source_decided_most_selectors_must_be_worse_for_a_warning():
    spec = make_spec(metric="val/balanced_accuracy")  # chooses trial 0
    lines = judgement_lines(judge_domains(TRIALS, spec=spec, notes=source_only()))
    assert any("warning: negative transfer" in line for line in lines)
    better = {"target/entropy": 0.4, "target/infomax": 0.0, "target/bnm": 0.1, "target/mcc": 0.9}
    assert not any(
        "warning" in line for line in judgement_lines(judge_domains(TRIALS, spec=spec, notes=source_only(**better)))
    )


def test_a_search_of_one_domain_says_nothing():
    spec = SearchSpec.model_validate({"search": {"name": "one", "trials": 1}, "scheduler": {"max_epochs": 3}})
    assert judge_domains([], spec=spec, notes=SearchNotes()) is None
    assert judgement_lines(None) == []


@pytest.mark.parametrize(("surplus", "warns"), [(0.3, True), (0.05, False), (-0.2, False)])
def test_a_final_trial_that_is_surer_of_the_target_than_it_is_right_on_the_source_is_warned_of(surplus, warns):
    trials = [trial(number, **{"target/overconfidence": surplus}) for number in range(3)]
    judgement = judge_domains(trials, spec=make_spec(), notes=SearchNotes())
    assert judgement["overconfidence"] == surplus
    warned = [line for line in judgement_lines(judgement) if "surer of target images" in line]
    assert bool(warned) == warns
    assert all(f"by {surplus:.2f}," in line for line in warned)


def test_a_class_has_one_colour_before_and_after(tmp_path):
    picture = {"domains": ["source", "source", "target"], "labels": ["a", "b", ""], "before": [[0, 1]] * 3}
    (tmp_path / PICTURE).write_text(json.dumps(picture | {"after": [[1, 0]] * 3}))
    figure = domain_figures(TRIALS, spec=make_spec(), folder=tmp_path)["Domains before and after (t-SNE)"]()
    colours = [(trace.name, trace.marker.color) for trace in figure.data]
    assert colours[:3] == colours[3:]
    assert len(set(colours)) == 3
