"""What a technique asks of a configuration, told where it is not met."""

from types import SimpleNamespace

import pytest

from trainable.config.technique import Need, Technique, unmet

SHORT = Technique(
    needs=(
        Need("train.epochs", lambda epochs: epochs <= 3, lambda got: f"train.epochs: at most 3, got {got}"),
        Need("seed", lambda seed: seed == 0, lambda got: f"seed: must be 0, got {got}"),
    )
)


@pytest.mark.parametrize(
    ("epochs", "seed", "lines"),
    [
        (3, 0, []),
        (4, 0, ["train.epochs: at most 3, got 4"]),
        (9, 5, ["train.epochs: at most 3, got 9", "seed: must be 0, got 5"]),
    ],
)
def test_each_need_that_is_not_met_is_a_line_with_what_was_given(epochs, seed, lines):
    config = SimpleNamespace(train=SimpleNamespace(epochs=epochs), seed=seed)
    assert list(unmet(SHORT, config=config)) == lines
