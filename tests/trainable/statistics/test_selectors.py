"""Selectors against skada's scorers, direct formulas and cases worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainable.statistics.ranking import SELECTORS
from trainable.statistics.selectors import (
    MAX_IMAGES,
    MAX_WIDTH,
    STRENGTHS,
    WORST,
    Outputs,
    a_distance,
    bnm,
    cross_entropies,
    density_ratios,
    dev,
    entropy,
    infomax,
    iwv,
    mcc,
    selectors,
    snd,
)
from trainable.statistics.transferability import mmd

PREDICTIONS = {"entropy": entropy, "infomax": infomax, "bnm": bnm, "mcc": mcc, "snd": snd}


@pytest.fixture(scope="module")
def skada():
    return pytest.importorskip("skada", reason="needs skada: pip install skada")


def cloud(count=60, width=4, *, seed=0, shift=0.0):
    return shift + np.random.default_rng(seed).standard_normal((count, width))


def predictions(count=60, num_classes=3, *, seed=0, sharpness=2.0):
    logits = sharpness * np.random.default_rng(seed).standard_normal((count, num_classes))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def toy(*, seed=0):
    """Inputs, labels (-1 unknown) and domains (the target's negative) as skada takes them."""
    generator = np.random.default_rng(seed)
    source, target = generator.standard_normal((150, 2)), generator.standard_normal((90, 2)) + np.array([0.8, -0.4])
    labels = (source[:, 0] + source[:, 1] ** 2 + 0.5 * generator.standard_normal(150) > 0.5).astype(int)
    return np.concatenate([source, target]), np.append(labels, np.full(90, -1)), np.repeat([1, -2], [150, 90])


def fitted(skada):
    inputs, labels, domains = toy()
    regression = LogisticRegression().set_score_request(sample_weight=True)
    return skada.make_da_pipeline(regression).fit(inputs, labels, sample_domain=domains)


def outputs(*, count=60, seed=0, shift=0.0, width=5):
    features = cloud(count, width, seed=seed, shift=shift).astype(np.float32)
    return Outputs(features, predictions(count, seed=seed).astype(np.float32))


def arguments(*, shift=0.5, width=5):
    return {
        "target": outputs(seed=1, shift=shift, width=width),
        "source": outputs(seed=2, width=width),
        "source_labels": np.arange(60) % 3,
        "target_train": cloud(80, width, seed=3, shift=shift).astype(np.float32),
        "source_train": cloud(120, width, seed=4).astype(np.float32),
        "seed": 7,
    }


def test_selectors_are_those_listed_each_as_its_own_function_says():
    given = arguments()
    found = selectors(**given)
    source, target = (given[name].features.astype(float) for name in ("source", "target"))
    probabilities = given["target"].probabilities.astype(float)
    trained = {name: given[f"{name}_train"].astype(float) for name in ("source", "target")}
    weights = density_ratios(source, **trained, seed=7)
    losses = cross_entropies(given["source"].probabilities.astype(float), labels=given["source_labels"])
    assert list(found) == list(SELECTORS)
    assert found == {
        **{name: PREDICTIONS[name](probabilities) for name in PREDICTIONS},
        "iwv": iwv(losses, weights=weights),
        "dev": dev(losses, weights=weights),
        "mmd": mmd(source, target),
        "a_distance": a_distance(source, target, seed=7),
    }
    assert all(type(value) is float for value in found.values())
    assert selectors(**given) == found


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["target", "source", "target_train", "source_train"])
def test_where_an_input_is_not_finite_every_selector_is_its_worst(name, bad):
    given = arguments()
    array = (given[name].probabilities if name == "target" else getattr(given[name], "features", given[name])).copy()
    array[3, 1] = bad
    field = "probabilities" if name == "target" else "features"
    given[name] = replace(given[name], **{field: array}) if isinstance(given[name], Outputs) else array
    assert selectors(**given) == WORST
    assert all(WORST[selector] == (-np.inf if SELECTORS[selector] == "maximize" else np.inf) for selector in SELECTORS)


def test_a_selector_that_is_undefined_is_its_worst_alone():
    """A prediction of no class has no direction, so that `snd` is 0/0; `entropy` takes it for 0."""
    given = arguments()
    given["target"].probabilities[5] = 0
    found = selectors(**given)
    assert found["snd"] == -np.inf
    assert all(np.isfinite(value) for name, value in found.items() if name != "snd")


def test_of_large_samples_a_part_is_taken_images_with_their_labels():
    """Every image of a class has the same prediction: were labels of other images, some losses would be large."""
    count = 3 * MAX_IMAGES
    labels = np.random.default_rng(0).integers(0, 3, count)
    source = Outputs(cloud(count, 3), np.eye(3)[labels])
    given = {**arguments(width=3), "source": source, "source_labels": labels}
    found = selectors(**given)
    assert found["iwv"] == 0
    assert selectors(**given) == found
    assert selectors(**{**given, "seed": 8})["mmd"] != found["mmd"]


@pytest.mark.parametrize("name", ["entropy", "infomax", "bnm", "mcc"])
def test_predictions_from_noise_to_certain_of_every_class_score_ever_better(name):
    noise, perfect = predictions(90, sharpness=0.3), np.eye(3)[np.arange(90) % 3]
    scores = [PREDICTIONS[name]((1 - share) * noise + share * perfect) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert np.all(np.diff(scores if SELECTORS[name] == "maximize" else scores[::-1]) > 0)


def test_dense_neighbourhoods_beat_scattered_ones_but_noise_around_one_point_beats_both():
    perfect = np.eye(3)[np.arange(90) % 3]
    assert snd(predictions(90, sharpness=3.0)) < snd(perfect) < snd(predictions(90, sharpness=0.3))


def test_perfect_and_uniform_predictions_by_hand():
    perfect, uniform = np.eye(4)[np.arange(20) % 4], np.full((20, 4), 0.25)
    assert entropy(perfect) == 0
    assert entropy(uniform) == pytest.approx(np.log(4))
    assert infomax(perfect) == pytest.approx(np.log(4))
    assert infomax(uniform) == pytest.approx(0)
    assert bnm(perfect) == pytest.approx(1)
    assert bnm(uniform) == pytest.approx(1 / 4)  # one singular value, √(20/4), over √(20·4)
    assert mcc(perfect) == pytest.approx(0)
    assert mcc(uniform) == pytest.approx(3 / 4)
    assert snd(perfect) == pytest.approx(np.log(4), abs=1e-5)  # each has four like it; e⁻²⁰ of the rest
    assert snd(uniform) == pytest.approx(np.log(19))


def test_predictions_of_one_class_only_are_told_from_good_ones():
    collapsed = np.eye(4)[np.zeros(20, dtype=int)]
    assert infomax(collapsed) == pytest.approx(0)
    assert bnm(collapsed) == pytest.approx(1 / 2)  # √20 over √(20·4)
    assert mcc(collapsed) == pytest.approx(3 / 4)
    assert mcc(0.9999 * collapsed + 0.000025) == pytest.approx(3 / 4, abs=1e-3)


def test_class_confusion_by_hand():
    """(1, 0) weighs 2 and (½, ½) 3/2: both give [[2+⅜, ⅜], [⅜, ⅜]], of which 3/22 and ½ are for the other class."""
    assert mcc(np.array([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx((3 / 22 + 1 / 2) / 2)


def test_the_neighbourhood_density_is_skadas(skada):
    inputs, labels, domains = toy()
    estimator = fitted(skada)
    expected = skada.metrics.SoftNeighborhoodDensity()(estimator, inputs, labels, sample_domain=domains)
    found = snd(estimator.predict_proba(inputs[150:], sample_domain=domains[150:]))
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_entropy_is_skadas_but_for_its_mean_over_classes_too(skada):
    inputs, labels, domains = toy()
    estimator = fitted(skada)
    expected = -skada.metrics.PredictionEntropyScorer()(estimator, inputs, labels, sample_domain=domains)
    found = entropy(estimator.predict_proba(inputs[150:], sample_domain=domains[150:]))
    assert found / 2 == pytest.approx(expected, abs=1e-5)


def test_importance_weighted_validation_is_skadas_for_its_weights(skada):
    """Skada's default: the weighted accuracy, with weights by kernel densities."""
    inputs, labels, domains = toy()
    estimator = fitted(skada)
    expected = skada.metrics.ImportanceWeightedScorer()(estimator, inputs, labels, sample_domain=domains)
    on_source, on_target = (
        KernelDensity().fit(part).score_samples(inputs[:150]) for part in (inputs[:150], inputs[150:])
    )
    told = estimator.predict(inputs[:150], sample_domain=domains[:150], allow_source=True)
    errors = (told != labels[:150]).astype(float)
    assert 1 - iwv(errors, weights=np.exp(on_target - on_source)) == pytest.approx(expected, abs=1e-5)
    assert abs(errors.mean() - (1 - expected)) > 1e-3


def test_deep_embedded_validation_is_skadas_where_its_losses_are_a_column(skada):
    """Of losses N, as its own default gives them, skada's product with weights N×1 is N×N."""
    inputs, labels, domains = toy()
    estimator = fitted(skada)
    search = GridSearchCV(
        LogisticRegression(max_iter=1000),
        {"C": STRENGTHS},
        cv=StratifiedKFold(2, shuffle=True, random_state=5),
        scoring="neg_log_loss",
    )
    scorer = skada.metrics.DeepEmbeddedValidation(
        domain_classifier=make_pipeline(StandardScaler(), search),
        loss_func=lambda y, p: -np.log(p[np.arange(len(y)), y])[:, None],
        random_state=3,
    )
    expected = -scorer(estimator, inputs, labels, sample_domain=domains)
    train, val, _, y_val = train_test_split(inputs[:150], labels[:150], test_size=0.33, random_state=3)
    weights = density_ratios(val, source=train, target=inputs[150:], seed=5)
    probabilities = estimator.predict_proba(val, sample_domain=np.ones(len(val)), allow_source=True)
    losses = cross_entropies(probabilities, labels=y_val)
    assert dev(losses, weights=weights) == pytest.approx(expected, abs=1e-5)
    assert abs(expected - losses.mean()) > 1e-3


def test_density_ratios_of_one_distribution_are_one_and_of_a_known_shift_the_known():
    """Of N(1, I) over N(0, I) the ratio at x is exp(Σx - D/2); 1000 images leave some tenths of a nat."""
    features, source = cloud(50, 2, seed=3), cloud(4000, 2)
    same = density_ratios(features, source=source, target=cloud(1000, 2, seed=1), seed=0)
    np.testing.assert_allclose(same, 1, atol=0.3)
    shifted = density_ratios(features, source=source, target=cloud(1000, 2, seed=1, shift=1.0), seed=0)
    np.testing.assert_allclose(np.log(shifted), features.sum(axis=1) - 1, atol=0.5)


def test_density_ratios_of_many_features_do_not_hang_on_one_image():
    """One distribution, more features than are kept: at least a third of the images count."""
    width = 5 * MAX_WIDTH
    samples = {"source": cloud(150, width, seed=1), "target": cloud(150, width, seed=2)}
    weights = density_ratios(cloud(150, width, seed=3), **samples, seed=0)
    assert weights.sum() ** 2 / np.square(weights).sum() > 50
    assert weights.mean() == pytest.approx(1, abs=0.3)


def test_density_ratios_of_many_features_are_nearly_those_without_a_projection():
    """For features that, as a network's do, mostly follow fewer causes."""
    mixing, width = cloud(20, 4 * MAX_WIDTH, seed=4), 4 * MAX_WIDTH
    source, target, features = (
        cloud(300, 20, seed=seed, shift=shift) @ mixing + cloud(300, width, seed=5 + seed)
        for seed, shift in ((1, 0.0), (2, 0.2), (3, 0.0))
    )
    domains = np.repeat([0, 1], 300)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": STRENGTHS}, scoring="neg_log_loss", cv=2)
    whole = make_pipeline(StandardScaler(), search).fit(np.concatenate([source, target]), domains)
    found = np.log(density_ratios(features, source=source, target=target, seed=0))
    assert 0.98 < np.corrcoef(found, whole.decision_function(features))[0, 1] < 0.9999


def test_importance_weighted_validation_by_hand():
    losses, weights = np.array([1.0, 4.0]), np.array([0.003, 0.001])
    assert iwv(losses, weights=weights) == pytest.approx(7 / 4)


def test_deep_embedded_validation_by_hand():
    """w·l = (2, 8, 0) and w = (1, 2, 0) of mean 1: η changes nothing; of w + 1 it takes off Cov(w·l, w)/Var(w)."""
    losses = np.array([2.0, 4.0, 5.0])
    assert dev(losses, weights=np.array([1.0, 2.0, 0.0])) == pytest.approx(10 / 3)
    weighted = np.array([4.0, 12.0, 5.0])
    slope = ((weighted - 7) @ np.array([0, 1, -1])) / 2
    assert dev(losses, weights=np.array([2.0, 3.0, 1.0])) == pytest.approx(7 - slope)
    assert dev(losses, weights=np.full(3, 0.5)) == pytest.approx(11 / 6)
    assert dev(np.full(3, 5.0), weights=np.array([0.1, 0.2, 2.0])) == pytest.approx(5)


def test_the_control_variate_has_the_least_variance_there_is():
    """η, from what it adds, leaves 1-ρ² of the variance of w·l."""
    generator = np.random.default_rng(0)
    losses, weights = generator.exponential(size=200), 2 * generator.gamma(2.0, size=200)
    weighted = weights * losses
    eta = (dev(losses, weights=weights) - weighted.mean()) / (weights.mean() - 1)
    rho = np.corrcoef(weighted, weights)[0, 1]
    assert np.var(weighted + eta * weights) == pytest.approx((1 - rho**2) * np.var(weighted))
    assert np.var(weighted + eta * weights) < min(np.var(weighted + (eta + d) * weights) for d in (-0.05, 0.05))


def test_weighting_finds_the_network_that_is_good_on_the_target():
    """One network errs where only source images are, the other where the target's are: the plain loss prefers the latter."""
    generator = np.random.default_rng(0)
    train, shifted = generator.standard_normal((500, 1)), generator.standard_normal((500, 1)) + 1.5
    features = generator.standard_normal((500, 1))
    weights = density_ratios(features, source=train, target=shifted, seed=0)
    at_source, at_target = (features[:, 0] < -0.3).astype(float), (features[:, 0] > 0.7).astype(float)
    assert at_source.mean() > at_target.mean()
    for selector in (iwv, dev):
        assert selector(at_source, weights=weights) < 0.2 < 0.6 < selector(at_target, weights=weights)


def test_the_loss_of_a_label_thought_impossible_is_finite():
    losses = cross_entropies(np.array([[0.0, 1.0], [0.25, 0.75]]), labels=np.array([0, 1]))
    assert losses == pytest.approx([12 * np.log(10), np.log(4 / 3)])


@pytest.mark.parametrize("width", [4, 2 * MAX_WIDTH])
def test_the_distance_of_domains_is_near_0_for_one_distribution_and_2_for_separate_ones(width):
    """Of 200 images half of each told right by chance has a deviation of 0.035, ε 4 times that of it."""
    source, target = cloud(200, width, seed=1), cloud(200, width, seed=2)
    assert a_distance(source, target, seed=0) < 0.2
    assert a_distance(source, target + 8, seed=0) == 2
    assert 0.3 < a_distance(source, target + 2 / width**0.5, seed=0) < 1.9


def test_the_distance_of_domains_is_that_of_the_error_of_the_best_line():
    """N(0, 1) and N(2, 1) are best parted at 1, with an error of Φ(-1) = 0.1587 each."""
    source, target = cloud(1000, 1, seed=1), cloud(1000, 1, seed=2, shift=2.0)
    assert a_distance(source, target, seed=0) == pytest.approx(2 * (1 - 2 * 0.1587), abs=0.1)


def test_the_distance_of_domains_does_not_depend_on_their_sizes():
    """The narrow target is nearly all told right, of the wide source four in ten are not. The mean over images gives 0.6."""
    source, target = 3 * cloud(3000, 1, seed=1), 0.3 * cloud(300, 1, seed=2) + 1.5
    expected = a_distance(source[:300], target, seed=0)
    assert a_distance(source, target, seed=0) == pytest.approx(expected, abs=0.2)
    assert a_distance(target, source, seed=0) == pytest.approx(expected, abs=0.2)
    assert a_distance(cloud(3000, 1, seed=3), cloud(300, 1, seed=4), seed=0) < 0.15


def test_domains_told_worse_than_by_chance_are_no_nearer_than_the_same():
    source, target = cloud(50, 4, seed=1), cloud(50, 4, seed=2)
    assert min(a_distance(source, target, seed=seed) for seed in range(10)) == 0


def test_dead_and_constant_features_leave_every_selector_finite():
    given = arguments(width=6)
    for name in ("target", "source"):
        given[name].features[:, 2] = 0
        given[name].features[:, 3] = 1e6
        given[f"{name}_train"][:, 2] = 0
        given[f"{name}_train"][:, 3] = 1e6
    assert all(np.isfinite(value) for value in selectors(**given).values())
