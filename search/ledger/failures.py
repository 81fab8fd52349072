"""What is told of a trial whose worker failed."""

from search.ledger.trials import Trial


def failure_text(trial: Trial) -> str:
    """The last failure of a trial that had one, and from where it goes on if it is open."""
    failure, times = trial.failure, trial.losses if trial.failure["of_machine"] else trial.attempts
    what = "lost its worker" if failure["of_machine"] else "failed"
    goes_on = f"; it goes on from epoch {trial.last_epoch}" if trial.state == "RUNNING" else ""
    return f"{what} in epoch {failure['epoch']} ({failure['reason']}), {times} times so far{goes_on}"
