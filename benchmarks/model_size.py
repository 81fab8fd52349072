"""What fitting the sampler to fewer results does to a search.

    python benchmarks/model_size.py                                        # about 15 minutes
    python benchmarks/model_size.py --sizes 300 --trials 300 --seeds 1     # 5 seconds

Searches the space of benchmarks/driver.py with TPE, a fifth of the trials random, for a made-up score with one optimum of 1,
measured with noise of 0.01, one trial after the other. Prints the true score of the best trial so far and the mean of the last
200, each the mean over the seeds.
"""

import argparse
import math
import random
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from driver import METRIC, SPACE

from search.engine import sampling
from search.engine.history import History
from search.engine.sampling import Sampling, propose
from search.ledger.trials import EpochRecord, Trial

SEEN = (300, 600, 1000, 2000)  # trials after which it is looked at
NOISE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[150, 300, 600, 100_000], help="results at most")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    seen = [count for count in SEEN if count <= options.trials]
    print(f"| results at most | {' | '.join(f'best, last 200 after {count:,}' for count in seen)} |")
    print("|---|" + "---|" * len(seen))
    for size in options.sizes:
        sampling.MODEL_SIZE = size
        searches = [search(num_trials=options.trials, seed=seed) for seed in range(options.seeds)]
        cells = [
            f"{statistics.mean(max(scores[:count]) for scores in searches):.4f}, "
            f"{statistics.mean(statistics.mean(scores[count - 200 : count]) for scores in searches):.4f}"
            for count in seen
        ]
        print(f"| {size:,} | {' | '.join(cells)} |", flush=True)


def search(*, num_trials: int, seed: int) -> list[float]:
    """The true scores of the trials of one search."""
    rule = Sampling(sampler="tpe", seed=seed, random_share=0.2, metric=METRIC, rungs=(3,))
    history, chance, scores = History(), random.Random(seed), []
    for number in range(num_trials):
        proposal = propose(history, space=SPACE, rule=rule)
        assert proposal is not None
        scores.append(score(proposal.params))
        metrics = {METRIC: scores[-1] + chance.gauss(0, NOISE)}
        epochs = (EpochRecord(number=3, metrics=metrics, recorded=datetime.now(UTC)),)
        history.change(
            Trial(
                number=number, params=proposal.params, state="PRUNED", epochs=epochs, target=3, origin=proposal.origin
            )
        )
    return scores


def score(params: Mapping[str, Any]) -> float:
    """Falls with the distance to one optimum, whose rates depend on how much is frozen."""
    depth, log_lr = params["freeze.depth"], math.log10(params["optimizer.lr"])
    distance = 0.6 * (log_lr + 2.7 - 0.6 * depth) ** 2
    distance += 0.15 * (math.log10(params["optimizer.backbone_multiplier"]) + 1 + 0.5 * depth) ** 2
    distance += 4.8 * (params["optimizer.layer_decay"] - 0.78) ** 2
    distance += 0.03 * (math.log10(params["optimizer.weight_decay"]) + 2.5) ** 2
    distance += 0.12 * abs(depth - 0.25)
    distance += {"none": 0.12, "light": 0.03, "medium": 0.0, "strong": 0.06}[params["augment.strength"]]
    distance += {0.0: 0.03, 0.05: 0.0, 0.1: 0.01}[params["loss.label_smoothing"]]
    distance += {"eval": 0.0, "train_stats": 0.03, "train_all": 0.05}.get(params.get("freeze.bn", ""), 0.02)
    return math.exp(-distance)


if __name__ == "__main__":
    main()
