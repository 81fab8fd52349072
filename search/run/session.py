"""A search from a command or a notebook: with its workers ahead, on a screen, in MLflow."""

from rich.console import Console

from search.engine.listeners import Listener, Outcome
from search.ledger.ledger import Ledger
from search.space.spec import SearchSpec
from search.tune.nursery import workers_ahead
from trainable.config.trial import TrialConfig


class Page(Listener):
    """Writes a finished search's page."""

    def end(self, ledger: Ledger, *, outcome: Outcome) -> None:
        """Write it, of a search that is finished."""
        if outcome.status == "finished":
            from search.report.page import write_page  # its plots take a second to load

            write_page(outcome.folder)


def run_on_screen(spec: SearchSpec, *, address: str | None, screen: Console, began: float) -> tuple[Outcome, list[str]]:
    """How a search ended, and what MLflow's thread has to say; workers load what they need beside everything else.

    Its time counts from when the command ``began``. Raises as :func:`search.run.search.run_search`.
    """
    with workers_ahead(address=address) as ahead:
        from trainable.data.readers.read import read_source

        read_source(TrialConfig.model_validate(spec.trial_config({})).data)  # mistakes show before Ray is started
        from search.report.progress import Progress
        from search.run.search import run_search
        from search.tracking.tracker import Tracker

        tracker = Tracker()
        listeners = [Page(), tracker, Progress(screen)]  # MLflow is given the page
        outcome = run_search(spec, address=address, listeners=listeners, ahead=ahead, began=began)
    return outcome, tracker.closing_lines()
