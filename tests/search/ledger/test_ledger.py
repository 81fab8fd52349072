"""The ledger on a real journal file, and on PostgreSQL where one is given."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from optuna.distributions import FloatDistribution
from sqlalchemy import NullPool, create_engine, event, text
from sqlalchemy.exc import OperationalError

from search.ledger import ledger as ledgers
from search.ledger.lease import HeldError, is_held, lease
from search.ledger.notes import DataFacts
from search.ledger.trials import PROBE, best_trial
from search.space.dimension import Number
from search.space.space import make_space
from trainable.errors import UserError

METRIC = "val/accuracy"
SPACE = make_space({"optimizer.lr": Number(low=1e-4, high=1e-1, log=True)})
LR = {"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)}


def new(folder, storage=None):
    return ledgers.create(folder, name="s", storage=storage, space=SPACE, metric=METRIC, notes={"metric": METRIC})


def begin(ledger, lr=0.01, target=3):
    return ledger.start(encoded={"optimizer.lr": lr}, distributions=LR, target=target, origin="random")


@pytest.fixture(params=["journal", "postgresql"])
def storage(request):
    if request.param == "journal":
        return None
    url = os.environ.get("TEST_POSTGRESQL")
    if not url:
        pytest.skip("TEST_POSTGRESQL names no database")
    return url


def test_what_is_written_is_read_back_by_another_reader(tmp_path, storage):
    ledger = new(tmp_path, storage)
    number = begin(ledger)
    ledger.record(number, epoch=1, metrics={METRIC: 0.5, "val/loss": float("inf"), "usage/seconds": 2.0})
    ledger.record(number, epoch=2, metrics={METRIC: 0.7, "usage/seconds": 3.0})
    ledger.aim(number, target=9)
    ledger.note(data=DataFacts(fingerprint="f", fingerprints={"path": ["f"]}))
    other = ledgers.open_existing(tmp_path, name="s", storage=storage, space=SPACE)
    (trial,) = other.trials()[-1:]
    assert (trial.number, trial.state, trial.target) == (number, "RUNNING", 9)
    assert trial.values(METRIC) == {1: 0.5, 2: 0.7}
    assert trial.values("val/loss") == {1: float("inf")}
    assert trial.seconds == 5.0
    assert other.notes.data == DataFacts(fingerprint="f", fingerprints={"path": ["f"]})


def test_one_that_writes_alone_knows_what_a_reader_reads_and_keeps_what_has_not_changed(tmp_path, storage):
    earlier = new(tmp_path, storage)
    first = begin(earlier)
    ledger = new(tmp_path, storage)
    earlier.record(first, epoch=1, metrics={METRIC: 0.5, "val/loss": float("inf")})
    ledger.write_alone()
    second = begin(ledger)
    ledger.record(second, epoch=1, metrics={METRIC: 0.7}, ended="no better")
    ledger.aim(first, target=9)
    ledger.count_failure(first, failure={"reason": "ValueError", "of_machine": False, "details": ""})
    before = ledger.trials()
    ledger.end(second, state="COMPLETE", reason="no better")
    after = ledger.trials()
    assert after[first] is before[first] is ledger.trial(first)
    assert (before[second].state, after[second].state) == ("RUNNING", "COMPLETE")
    assert after == ledgers.open_existing(tmp_path, name="s", storage=storage, space=SPACE).trials()


def test_an_epoch_costs_no_more_calls_among_many_trials_than_among_few(tmp_path, calls_of):
    ledger = new(tmp_path)
    ledger.write_alone()
    counts = []
    for count in (10, 200):
        while len(ledger.trials()) < count:
            begin(ledger)
        counts.append(calls_of(lambda: ledger.record(0, epoch=len(counts) + 1, metrics={METRIC: 0.5})))
    assert counts[1] < counts[0] + 50  # the trial itself has one epoch more


def test_metrics_that_are_not_finite_are_no_numbers_in_its_json_and_come_back(tmp_path):
    ledger = new(tmp_path)
    number = begin(ledger)
    ledger.record(number, epoch=1, metrics={METRIC: 0.5, "target/iwv": float("inf"), "target/dev": -0.25})
    ledger.store_note("measured", {"target/snd": float("-inf")})
    for line in (tmp_path / ledgers.JOURNAL).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    other = ledgers.open_existing(tmp_path, name="s", storage=None, space=SPACE)
    assert other.trial(number).epochs[0].metrics == {METRIC: 0.5, "target/iwv": float("inf"), "target/dev": -0.25}
    assert other.stored_notes()["measured"] == {"target/snd": float("-inf")}


def test_a_folder_without_links_holds_a_ledger(tmp_path, monkeypatch):
    def refuse(source, target, **kwargs):
        raise PermissionError(errno.EPERM, "Operation not permitted", source, None, target)

    monkeypatch.setattr(os, "symlink", refuse)  # as exFAT, SMB and mounted cloud drives do
    monkeypatch.setattr(os, "link", refuse)
    ledger = new(tmp_path)
    ledger.record(begin(ledger), epoch=1, metrics={METRIC: 0.5})
    assert [trial.values(METRIC) for trial in ledger.trials()] == [{1: 0.5}]


def test_one_begun_before_every_data_set_was_noted_may_train_on_the_one_it_names(tmp_path):
    ledger = new(tmp_path)
    ledger.note(data={"fingerprint": "f"})
    assert ledger.notes.data.fingerprints == {"path": ["f"]}
    several = {"path": ["e", "f"], "rehearsal": ["g"]}
    ledger.note(data=DataFacts(fingerprint="f", fingerprints=several))
    assert ledger.notes.data.fingerprints == several


def test_a_stopped_trial_is_pruned_with_its_values_and_a_failed_one_has_none(tmp_path):
    ledger = new(tmp_path)
    for state in ("PRUNED", "FAILED", "COMPLETE"):
        number = begin(ledger)
        ledger.record(number, epoch=1, metrics={METRIC: 0.5})
        ledger.record(number, epoch=2, metrics={METRIC: 0.4})
        ledger.end(number, state=state, reason="why")
    pruned, failed, complete = ledger.study.trials
    assert [t.state.name for t in (pruned, failed, complete)] == ["PRUNED", "FAIL", "COMPLETE"]
    assert pruned.intermediate_values == {1: 0.5, 2: 0.4}
    assert (pruned.value, failed.value, complete.value) == (0.5, None, 0.5)
    assert [t.reason for t in ledger.trials()] == ["why"] * 3


def test_what_a_trial_has_in_place_of_its_values_is_read_back(tmp_path):
    ledger = new(tmp_path)
    overrides = {"model.until": None, "finetune.solver": "lbfgs"}
    number = ledger.start(encoded={"optimizer.lr": 0.01}, distributions=LR, target=1, origin=PROBE, overrides=overrides)
    begin(ledger)
    assert [trial.overrides for trial in new(tmp_path).trials()] == [overrides, {}]
    assert "overrides" not in ledger.study.trials[1].user_attrs
    assert not ledger.trial(number).is_searched


def test_an_epoch_recorded_twice_stays_as_it_was_first(tmp_path):
    ledger = new(tmp_path)
    number = begin(ledger)
    ledger.record(number, epoch=1, metrics={METRIC: 0.5})
    ledger.record(number, epoch=1, metrics={METRIC: 0.9})
    assert ledger.trial(number).values(METRIC) == {1: 0.5}


def test_why_a_trial_ended_is_recorded_with_its_last_epoch(tmp_path):
    ledger = new(tmp_path)
    number = begin(ledger)
    ledger.record(number, epoch=1, metrics={METRIC: 0.5})
    ledger.record(number, epoch=2, metrics={METRIC: 0.5}, ended="no better")
    assert [epoch.ended for epoch in new(tmp_path).trial(number).epochs] == [None, "no better"]


def test_the_best_trial_is_none_that_failed_and_the_older_of_equals(tmp_path):
    ledger = new(tmp_path)
    for value, state in ((0.5, "COMPLETE"), (0.9, "FAILED"), (0.7, "PRUNED"), (0.7, "COMPLETE")):
        number = begin(ledger)
        ledger.record(number, epoch=1, metrics={METRIC: value})
        ledger.end(number, state=state, reason="")
    assert best_trial(ledger.trials(), metric=METRIC).number == 2


def test_a_line_cut_short_and_a_lock_left_behind_are_mended(tmp_path):
    ledger = new(tmp_path)
    begin(ledger)
    journal = tmp_path / ledgers.JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 8, "trial')
    journal.with_name(f"{journal.name}.lock").symlink_to("nowhere")
    ledgers.mend_journal(journal)
    assert journal.read_bytes() == whole
    again = new(tmp_path)
    again.record(0, epoch=1, metrics={METRIC: 0.5})
    assert again.trial(0).last_epoch == 1


def test_a_search_that_does_not_exist_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no search of this name"):
        ledgers.open_existing(tmp_path / "nothing", name="nothing", storage=None, space=SPACE)


def test_the_second_driver_is_refused_and_the_lease_of_a_killed_one_is_free(tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from search.ledger.lease import lease\n"
        "with lease(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(300)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert is_held(tmp_path)
    with pytest.raises(HeldError, match=f"being run by process {holder.pid} on"), lease(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    assert not is_held(tmp_path)
    with lease(tmp_path):
        assert is_held(tmp_path)


def test_a_process_killed_while_it_writes_leaves_a_ledger_that_opens(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from search.ledger import ledger as ledgers\n"
        "from search.space.dimension import Number\n"
        "from search.space.space import make_space\n"
        "space = make_space({'optimizer.lr': Number(low=1e-4, high=1e-1, log=True)})\n"
        "ledger = ledgers.open_existing(pathlib.Path(sys.argv[1]), name='s', storage=None, space=space)\n"
        "for epoch in range(1, 100_000):\n"
        f"    ledger.record(0, epoch=epoch, metrics={{{METRIC!r}: 0.5}})\n"
    )
    begin(new(tmp_path))
    journal = tmp_path / ledgers.JOURNAL
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    while journal.stat().st_size < 20_000:
        assert writer.poll() is None
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    ledgers.mend_journal(journal)
    ledger = new(tmp_path)
    trial = ledger.trial(0)
    assert trial.last_epoch > 10
    assert list(trial.values(METRIC)) == list(range(1, trial.last_epoch + 1))
    ledger.record(0, epoch=trial.last_epoch + 1, metrics={METRIC: 1.0})


def test_the_address_of_a_database_is_shown_without_its_secrets(tmp_path):
    storage = f"sqlite:///file:{tmp_path}/x.db?uri=true&sslpassword=hunter2"
    with pytest.raises(UserError, match=r"no search of this name in sqlite:.*&sslpassword=\*\*\*$"):
        ledgers.open_existing(tmp_path, name="nothing", storage=storage, space=SPACE)


def test_a_database_that_goes_away_is_told_and_other_errors_and_ctrl_c_stay_what_they_are(tmp_path):
    (tmp_path / "there").mkdir()
    engine = create_engine(f"sqlite:///{tmp_path}/there/file.db", poolclass=NullPool)
    ledgers.tell_of_outages(engine)
    with engine.connect() as connection, pytest.raises(OperationalError, match="no such table"):
        connection.execute(text("SELECT * FROM missing"))

    def interrupt(*_):
        raise KeyboardInterrupt

    event.listen(engine, "do_execute", interrupt)
    with engine.connect() as connection, pytest.raises(KeyboardInterrupt):
        connection.execute(text("SELECT 1"))
    shutil.rmtree(tmp_path / "there")
    with pytest.raises(ledgers.LedgerFailsError, match=r"^search.storage: the database does not answer any more \("):
        engine.connect()
