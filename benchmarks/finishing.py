"""What each step of finishing brings on test images: accuracy, calibration, milliseconds.

    python benchmarks/finishing.py searches/quickstart searches/elpv
    python benchmarks/finishing.py searches/quickstart --steps calibration --trials 3

Takes the best trials of finished searches whose checkpoints are kept, lets each step be chosen by validation images as a search
does, and scores the network on the test images as it was trained and with each step. The searches must lie where they were
run. Of every search it prints the means over its trials, and in how many of them a step was kept; the test images are
looked at here alone.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from search.ledger.files import best_checkpoint
from search.ledger.stored import open_ledger
from search.ledger.trials import leaders
from trainable.config.trial import TrialConfig
from trainable.training.finishing import Finish, StepName
from trainable.training.trained import Trained

SCORES = ("balanced_accuracy", "accuracy", "macro_f1", "loss", "ece")
STEPS: tuple[StepName, ...] = ("interpolation", "views", "calibration", "class_weights")
CALLS = 5  # timed, of one image


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    for folder in options.searches:
        rows = [row for trained in kept(folder, count=options.trials) for row in measure(trained, steps=options.steps)]
        print("\n".join(table(rows, title=folder.name)), end="\n\n")


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", type=Path, nargs="+", help="folders of finished searches")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--trials", type=int, default=5, help="of each search, the best")
    return parser.parse_args(words)


def kept(folder: Path, *, count: int) -> Iterator[Trained]:
    """The networks of the best trials whose checkpoints are there, the best first."""
    spec, ledger = open_ledger(folder)
    metric = spec.search.metric
    for trial in leaders(ledger.trials(), metric=metric)[:count]:
        checkpoint = best_checkpoint(folder, trial, metric=metric)
        if checkpoint is not None:
            yield Trained(config=TrialConfig.model_validate(spec.config_of(trial)), checkpoint=checkpoint)


Row = tuple[str, bool, dict[str, float]]  # what the network was given, whether a search would have, test scores


def measure(trained: Trained, *, steps: Sequence[StepName]) -> Iterator[Row]:
    """Test scores of a network as it was trained, then with each step alone, as far as it is kept."""
    yield "as trained", True, scores(trained)
    for step in steps:
        finish = trained.find_finish([step])
        yield step, finish != Finish(), scores(replace(trained, finish=finish))


def scores(trained: Trained) -> dict[str, float]:
    """Test scores, and the milliseconds for an image of its own."""
    setup, _ = trained.open()
    spec = setup.inputs.full.spec
    image = torch.zeros(1, len(spec.mean), spec.size, spec.size, device=setup.device)
    seconds = []
    with torch.inference_mode():
        for _ in range(CALLS + 1):
            started = time.perf_counter()
            setup.network.eval()(image)
            seconds.append(time.perf_counter() - started)
    return {**trained.score("test").metrics, "ms": 1000 * min(seconds)}


def table(rows: Sequence[Row], *, title: str) -> list[str]:
    """Lines of Markdown: the means over trained networks."""
    names = (*SCORES, "ms")
    lines = [f"{title}:", "", _line(["given", "kept", *names]), "|---" * (len(names) + 2) + "|"]
    for what in dict.fromkeys(what for what, _, _ in rows):
        of_step = [(is_kept, found) for other, is_kept, found in rows if other == what]
        cells = [f"{mean(found[name] for _, found in of_step):{'.1f' if name == 'ms' else '.4f'}}" for name in names]
        lines.append(_line([what, f"{sum(one for one, _ in of_step)} of {len(of_step)}", *cells]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
