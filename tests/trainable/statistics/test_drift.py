"""Drift against brute force, cases worked by hand and real images that were changed."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from trainable import TrialConfig
from trainable.data.decode import decode
from trainable.data.readers.read import read_source
from trainable.loader.batches import normalise
from trainable.loader.views import evaluation_view
from trainable.model.backbone import input_spec
from trainable.model.network import create_network
from trainable.statistics.drift import Drift, Prior, drifted, feature_drift, prior_drift
from trainable.statistics.transferability import MMD_WIDTHS, mmd_permutations

THRESHOLDS = {"p": 0.01, "effect": 0.1}
NO_PRIOR = Prior(effect=0.0, p=1.0)


def sample(count, *, shift=0.0, width=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)) + shift


def compare(old, new, *, old_labels=None, new_labels=None, **options):
    return feature_drift(
        old,
        new,
        old_labels=["a"] * len(old) if old_labels is None else old_labels,
        new_labels=["b"] * len(new) if new_labels is None else new_labels,
        **({"seed": 0} | options),
    )


def pair_by_pair(x, y):
    """The mean kernel of pairs of different images inside each sample, less twice that across, in plain loops."""
    both = [*x, *y]
    squares = {(i, j): ((both[i] - both[j]) ** 2).sum() for i in range(len(both)) for j in range(len(both)) if i != j}
    median = np.median(list(squares.values()))
    kernel = {pair: np.mean([np.exp(-one / (width * median)) for width in MMD_WIDTHS]) for pair, one in squares.items()}
    inside_x = [value for (i, j), value in kernel.items() if max(i, j) < len(x)]
    inside_y = [value for (i, j), value in kernel.items() if min(i, j) >= len(x)]
    across = [value for (i, j), value in kernel.items() if i < len(x) <= j]
    return np.mean(inside_x) + np.mean(inside_y) - 2 * np.mean(across)


def test_the_effect_is_the_root_of_what_all_pairs_say_one_by_one():
    x, y = sample(7, seed=1), sample(11, shift=1.0, seed=2)
    values = mmd_permutations(x, y, permutations=19, seed=3)
    assert len(values) == 20
    assert values[0] == pytest.approx(pair_by_pair(x, y))
    assert compare(x, y)["all"].effect == pytest.approx(np.sqrt(pair_by_pair(x, y)))


def test_the_unbiased_estimate_is_nothing_on_average_without_drift_however_few_the_images():
    for count in (3, 10, 60):
        found = [
            mmd_permutations(sample(count, seed=i), sample(count, seed=i + 500), permutations=1, seed=0)[0]
            for i in range(100)
        ]
        assert abs(np.mean(found)) < 4 * np.std(found) / 10


def test_a_shuffle_is_the_estimate_of_other_samples_of_the_same_images():
    x, y = sample(2, seed=1), sample(2, shift=2.0, seed=2)
    both = [*x, *y]
    halves = [([0, 1], [2, 3]), ([0, 2], [1, 3]), ([0, 3], [1, 2])]  # the estimate knows no order of samples
    possible = [pair_by_pair([both[i] for i in one], [both[i] for i in other]) for one, other in halves]
    values = mmd_permutations(x, y, permutations=60, seed=0)
    assert sorted(set(values.round(9))) == pytest.approx(sorted(possible), abs=1e-8)


def test_the_same_distribution_is_taken_for_drift_no_more_often_than_p_says():
    """p ≤ 0.1 in a tenth of 200 draws: within 4 standard deviations, 0.021 each."""
    ps = [compare(sample(40, seed=i), sample(25, seed=i + 1000), permutations=49)["all"].p for i in range(200)]
    assert 0.02 <= np.mean(np.array(ps) <= 0.1) <= 0.185


def test_many_classes_are_not_found_by_chance():
    """Some of ten classes has p ≤ 0.1 in a tenth of 100 draws, not in 65 %: within 4 standard deviations, 0.03 each."""
    labels = [str(number) for number in range(10) for _ in range(20)]
    some = []
    for i in range(100):
        found = compare(
            sample(200, seed=i), sample(200, seed=i + 1000), old_labels=labels, new_labels=labels, permutations=49
        )
        assert len(found) == 11
        some.append(min(one.p for name, one in found.items() if name != "all") <= 0.1)
    assert np.mean(some) <= 0.22


def test_one_class_among_many_is_found_and_named():
    labels = [str(number) for number in range(20) for _ in range(30)]
    new = sample(600, seed=1)
    new[300:330] += 2.0
    found = compare(sample(600, seed=2), new, old_labels=labels, new_labels=labels)
    (reason,) = drifted({name: one for name, one in found.items() if name != "all"}, NO_PRIOR, **THRESHOLDS)
    assert reason.startswith("images of class '10': features differ by ")
    assert reason.endswith("(p 0.005; 30 new images against 30)")


def test_the_drift_of_a_large_class_is_not_hidden_by_what_chance_makes_of_a_small_one():
    labels = ["large"] * 400 + ["small"] * 20
    new = sample(420, seed=1)
    new[:400] += 0.3
    found = compare(sample(420), new, old_labels=labels, new_labels=labels)
    assert found["large"].p == 1 / 201
    assert found["small"].p > 0.05


def test_a_class_is_judged_where_both_sides_have_enough_of_it():
    old_labels = ["many"] * 50 + ["few"] * 19 + ["gone"] * 40
    new_labels = ["many"] * 20 + ["few"] * 30 + ["new"] * 40
    found = compare(sample(109), sample(90, seed=1), old_labels=old_labels, new_labels=new_labels)
    assert set(found) == {"all", "many"}
    assert (found["many"].num_old, found["many"].num_new) == (50, 20)
    assert (found["all"].num_old, found["all"].num_new) == (109, 90)


def test_the_effect_of_a_small_shift_does_not_grow_with_the_images_while_p_falls():
    found = {count: compare(sample(count), sample(count, shift=0.25, seed=1))["all"] for count in (50, 200, 1000)}
    assert [one.p for one in found.values()] == sorted((one.p for one in found.values()), reverse=True)
    assert found[50].p > 0.01 >= found[1000].p == 1 / 201
    exact = np.mean(
        [compare(sample(1000, seed=i), sample(1000, shift=0.25, seed=i + 9))["all"].effect for i in range(3)]
    )
    small = [
        mmd_permutations(sample(50, seed=i), sample(50, shift=0.25, seed=i + 99), permutations=1, seed=0)[0]
        for i in range(99)
    ]
    assert np.mean(small) == pytest.approx(exact**2, abs=4 * np.std(small) / 10)


def test_a_drift_too_small_to_matter_is_no_reason_however_sure_it_is():
    found = compare(sample(1000), sample(1000, shift=0.15, seed=1))
    assert found["all"].p == 1 / 201
    assert found["all"].effect < 0.1
    assert drifted(found, Prior(effect=0.09, p=1e-9), **THRESHOLDS) == []


def test_a_drift_that_chance_may_have_made_is_no_reason_however_large_it_is():
    found = {"all": Drift(effect=0.4, p=0.02, num_old=20, num_new=20)}
    assert drifted(found, Prior(effect=0.4, p=0.02), **THRESHOLDS) == []
    assert len(drifted(found, Prior(effect=0.4, p=0.02), p=0.05, effect=0.4)) == 2


def test_every_reason_has_its_numbers():
    found = {"all": Drift(effect=0.123, p=0.0049, num_old=1000, num_new=130)}
    assert drifted(found, Prior(effect=0.2, p=3.1e-7), **THRESHOLDS) == [
        "all images: features differ by 0.12 (p 0.0049; 130 new images against 1000)",
        "shares of the classes differ by 0.20 (p 3.1e-07)",
    ]


def test_the_seed_alone_says_which_images_are_drawn():
    old, new = sample(90), sample(80, shift=0.3, seed=1)
    first = compare(old, new, most=40)
    assert (first["all"].num_old, first["all"].num_new) == (40, 40)
    assert compare(old, new, most=40) == first
    assert compare(old, new, most=40, seed=1)["all"].effect != first["all"].effect
    assert compare(old, new, seed=0)["all"].effect == compare(old, new, seed=1)["all"].effect  # all of them


def test_features_that_are_all_the_same_have_not_drifted():
    labels = ["a"] * 25
    found = compare(np.ones((25, 3)), np.ones((25, 3)), old_labels=labels, new_labels=labels)
    assert {name: (one.effect, one.p) for name, one in found.items()} == {"all": (0.0, 1.0), "a": (0.0, 1.0)}


def priors(old, new):
    return prior_drift(old, new, seed=0)


def test_shares_of_classes_by_hand():
    """χ² = 200·(30·50-70·50)²/(80·120·100·100) = 8.333; V² = 8.333/200 - (1/100 + 1/100)/4; Fisher's exact p is 0.0059."""
    found = priors({"a": 30, "b": 70}, {"a": 50, "b": 50})
    assert found.p == pytest.approx(0.0059, abs=0.006)  # of 1000 draws
    assert found.effect == pytest.approx(np.sqrt(0.0416667 - 0.005), abs=1e-6)
    assert priors({"a": 30, "b": 70}, {"a": 30, "b": 70}).p == 1.0


def test_the_effect_on_shares_is_the_same_for_any_number_of_images():
    few = priors({"a": 3_000_000, "b": 7_000_000}, {"a": 5000, "b": 5000}).effect
    assert few == pytest.approx(priors({"a": 5_000_000, "b": 5_000_000}, {"a": 3000, "b": 7000}).effect, abs=1e-3)
    assert few == pytest.approx(np.sqrt(0.0416667), abs=1e-3)
    generator = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    drawn = [dict(enumerate(map(int, generator.multinomial(60, shares)))) for _ in range(200)]
    found = [priors(one, other) for one, other in zip(drawn[::2], drawn[1::2], strict=True)]
    assert np.mean([one.effect for one in found]) < 0.12  # uncorrected 0.27
    assert np.mean([one.p <= 0.1 for one in found]) <= 0.22


@pytest.mark.parametrize("num_new", [20, 50, 100])
def test_rare_classes_that_come_or_stay_away_by_chance_are_no_drift(num_new):
    generator = np.random.default_rng(num_new)
    shares = 0.75 ** np.arange(20)
    shares /= shares.sum()
    drawn = [[dict(enumerate(generator.multinomial(size, shares))) for size in (1000, num_new)] for _ in range(100)]
    found = [priors(old, new) for old, new in drawn]
    assert sum(bool(drifted({}, one, **THRESHOLDS)) for one in found) <= 4  # one of 100 is expected


def test_new_classes_and_fewer_than_twenty_images_are_no_matter_of_shares():
    expected = priors({"a": 30, "b": 70}, {"a": 50, "b": 50})
    assert priors({"a": 30, "b": 70}, {"b": 50, "new": 10, "a": 50, "empty": 0}) == expected
    assert priors({"a": 30, "gone": 0}, {"a": 50, "new": 30}) == NO_PRIOR
    assert priors({"a": 300, "b": 700}, {"a": 19}) == NO_PRIOR
    assert priors({"a": 300, "b": 700}, {"a": 20}).p < 0.01


def blurred(image):
    return image.filter(ImageFilter.GaussianBlur(4))


def brighter(image):
    return ImageEnhance.Brightness(image).enhance(1.5)


def encoded(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def features_of():
    """Features of encoded images by a backbone with ImageNet's weights at 64 pixels."""
    config = TrialConfig.model_validate(
        {
            "data": {"format": "elpv", "image_size": 64},
            "model": {"name": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"},
            "train": {"epochs": 1},
        }
    )
    spec = input_spec(config.model, image_size=64, channels=3)
    network = create_network(config, spec=spec, num_classes=2).eval()
    stored = {"channels": 3, "side": spec.stored_side, "interpolation": spec.interpolation}

    def compute(images):
        views = [evaluation_view(decode(image, **stored), spec) for image in images]
        with torch.inference_mode():
            parts = [
                network.features(normalise(torch.stack(views[i : i + 50]), spec)) for i in range(0, len(views), 50)
            ]
        return torch.cat(parts).numpy()

    return compute


@pytest.fixture(scope="module")
def real_cells():
    """Solar cells by the type of their module, in random order."""
    samples = read_source(TrialConfig.model_validate({"data": {"format": "elpv"}, "train": {"epochs": 1}}).data).samples
    order = np.random.default_rng(0).permutation(len(samples))
    by_type = {"mono": [], "poly": []}
    for sample_of_cell in (samples[i] for i in order):
        by_type[sample_of_cell.domain].append(sample_of_cell.read_bytes)
    return by_type


def changed(change, images):
    return [encoded(change(Image.open(io.BytesIO(image)))) for image in images]


def test_real_images_drift_where_they_are_changed_and_only_there(features_of, real_cells):
    mono = [read() for read in real_cells["mono"][:300]]
    old, new = features_of(mono[:180]), features_of(mono[180:])
    poly = features_of([read() for read in real_cells["poly"][:120]])
    others = {
        "blurred": features_of(changed(blurred, mono[180:])),
        "brighter": features_of(changed(brighter, mono[180:])),
        "another module type": poly,
        "every third of another type": np.concatenate([new[:80], poly[:40]]),
    }
    assert drifted(compare(old, new), NO_PRIOR, **THRESHOLDS) == []
    assert {
        name: len(drifted(compare(old, other), NO_PRIOR, **THRESHOLDS)) for name, other in others.items()
    } == dict.fromkeys(others, 1)
