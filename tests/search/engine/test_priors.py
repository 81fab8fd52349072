import math
from typing import get_args

import numpy as np
import pytest

from search.engine.coordinates import Coordinates
from search.engine.priors import ODDS, WIDTHS, Priors
from search.space.dimension import Confidence, parse_dimension
from search.space.space import make_space


def space(**vary):
    return make_space({path.replace("__", "."): parse_dimension(raw, where=path) for path, raw in vary.items()})


LR = {"log": [1e-4, 1e-2]}
HEADS = {"choice": ["linear", "mlp"]}
WIDTH = {"int": [128, 1024], "when": {"model.head": "mlp"}}


def drawn(of, *, path, count=4000):
    rows = Priors(of).draw(np.random.default_rng(0), count=count)
    return [params[path] for row in rows if path in (params := Coordinates(of).params(row))]


def test_every_confidence_has_a_width_and_odds_a_factor_of_two_apart():
    names = get_args(Confidence)
    assert tuple(WIDTHS) == tuple(ODDS) == names
    assert [WIDTHS["low"] / WIDTHS[name] for name in names] == [1, 2, 4]
    assert [ODDS[name] / ODDS["low"] for name in names] == [1, 2, 4]


def test_two_thirds_of_the_drawn_numbers_lie_within_a_width_of_the_prior():
    rates = drawn(space(optimizer__lr=LR | {"prior": 1e-3, "confidence": "high"}), path="optimizer.lr")
    near = [abs(math.log10(rate) + 3) < 0.2 for rate in rates]  # a tenth of two powers of ten
    assert sum(near) / len(near) == pytest.approx(0.683, abs=0.03)


@pytest.mark.parametrize("prior", [1e-4, 1e-2])
def test_a_prior_at_a_bound_draws_inside_the_range(prior):
    rates = drawn(space(optimizer__lr=LR | {"prior": prior, "confidence": "high"}), path="optimizer.lr")
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert np.median(np.abs(np.log10(np.array(rates) / prior))) == pytest.approx(0.6745 * 0.2, abs=0.02)


def test_a_choice_is_drawn_by_its_odds_and_what_has_no_prior_evenly():
    of = space(optimizer__name={"choice": ["sgd", "adam", "adamw"], "prior": "adamw"}, model__head=HEADS)
    names = drawn(of, path="optimizer.name")
    assert names.count("adamw") / len(names) == pytest.approx(4 / 6, abs=0.03)
    assert names.count("sgd") / len(names) == pytest.approx(1 / 6, abs=0.03)
    assert drawn(of, path="model.head").count("mlp") / len(names) == pytest.approx(1 / 2, abs=0.03)


@pytest.mark.parametrize("confidence", get_args(Confidence))
def test_the_density_integrates_to_that_of_even_draws(confidence):
    of = space(
        optimizer__lr=LR | {"prior": 3e-3, "confidence": confidence},
        loss__label_smoothing={"choice": [0.0, 0.05, 0.1], "prior": 0.05, "confidence": confidence},
        model__head=HEADS | {"prior": "mlp"},
        model__head_hidden=WIDTH | {"prior": 512},
    )
    rows = Coordinates(of).draw(np.random.default_rng(0), count=40_000)
    assert np.exp(Priors(of).log_density(rows)).mean() == pytest.approx(1.0, abs=0.05)


def test_densities_are_those_of_the_normal_distribution_and_of_the_odds():
    of = space(optimizer__lr=LR | {"prior": 1e-3}, model__head=HEADS | {"prior": "mlp", "confidence": "low"})
    points = [
        {"optimizer.lr": 1e-3, "model.head": "mlp"},
        {"optimizer.lr": 1e-3, "model.head": "linear"},
        {"optimizer.lr": 1e-3 * 10**0.4, "model.head": "mlp"},
    ]
    logs = Priors(of).log_density(Coordinates(of).rows(points))
    assert logs[0] - logs[1] == pytest.approx(math.log(2))
    assert logs[0] - logs[2] == pytest.approx(0.5)  # one standard deviation, 0.2 of two powers of ten


def test_nothing_known_weighs_nothing_and_an_inactive_path_neither():
    nothing = space(optimizer__lr=LR, model__head=HEADS)
    rows = Coordinates(nothing).draw(np.random.default_rng(0), count=5)
    assert Priors(nothing).log_density(rows).tolist() == [0.0] * 5
    hidden = space(model__head=HEADS, model__head_hidden=WIDTH | {"prior": 512})
    assert Priors(hidden).log_density(Coordinates(hidden).rows([{"model.head": "linear"}])).tolist() == [0.0]


def test_the_centre_has_the_priors_to_the_last_digit_and_any_value_of_the_rest():
    of = space(
        optimizer__lr=LR | {"prior": 0.0007},
        optimizer__layer_decay={"uniform": [0.5, 1.0], "step": 0.1, "prior": 0.8},
        train__batch_size={"int": [8, 512], "log": True, "prior": 20},
        model__head=HEADS | {"prior": "mlp"},
        model__head_hidden=WIDTH,
        data__image_size={"choice": [96, [1, 2]], "prior": [1, 2]},
    )
    centres = [Priors(of).centre(np.random.default_rng(seed)) for seed in range(20)]
    assert all(of.contains(centre) for centre in centres)
    assert len({centre.pop("model.head_hidden") for centre in centres}) > 10
    expected = {
        "optimizer.lr": 0.0007,
        "optimizer.layer_decay": 0.8,
        "train.batch_size": 20,
        "model.head": "mlp",
        "data.image_size": [1, 2],
    }
    assert all(centre == expected for centre in centres)


def test_a_prior_of_what_is_not_active_is_left_out_of_the_centre():
    of = space(model__head=HEADS | {"prior": "linear"}, model__head_hidden=WIDTH | {"prior": 512})
    assert Priors(of).centre(np.random.default_rng(0)) == {"model.head": "linear"}


def test_whole_range_numbers_written_as_whole_become_floats_as_other_draws_are():
    of = space(loss__focal_gamma={"uniform": [0, 5], "prior": 2})
    (gamma,) = Priors(of).centre(np.random.default_rng(0)).values()
    assert isinstance(gamma, float)
