from datetime import UTC, datetime, timedelta

import pytest

from search.refresh.decision import Facts, Loss, hours_of_month, next_rung, wait_before_search
from search.space.promotion_sections import RefreshSection

RULE = RefreshSection(small_share=0.2, tolerance=0.02)
GOOD = Loss(value=0.80, level=0.81, low=-0.03, num_images=40)
SHORT = Loss(value=0.60, level=0.81, low=0.10, num_images=40)
UNSURE = Loss(value=0.0, level=0.81, low=None, num_images=3)
NEW = Facts(has_champion=True, num_changed=10, share_changed=0.1)


def with_(facts=NEW, **values):
    return Facts(**(vars(facts) | values))


@pytest.mark.parametrize(
    ("facts", "kind", "is_last"),
    [
        (Facts(has_champion=False, is_new_space=True), "full search", True),
        (Facts(has_champion=False), "warm search", True),
        (Facts(has_champion=False, finished_search="cells"), "skip", True),
        (with_(same_data=True), "skip", True),
        (with_(same_data=True, space_changes=("vary.optimizer.lr: a -> b",)), "full search", True),
        (with_(new_classes=("rust",)), "warm search", True),
        (with_(vanished_classes=("rust",)), "warm search", True),
        (with_(), "drift", False),
        (with_(drift=("all: effect 0.1",)), "warm search", True),
        (with_(drift=()), "champion", False),
        (with_(drift=(), only_removed=True), "skip", True),
        (with_(drift=(), champion_loss=GOOD), "re-evaluate", True),
        (with_(drift=(), champion_loss=SHORT), "refit", False),
        (with_(drift=(), why_champion_not_asked="no new image"), "skip", True),
        (with_(drift=(), champion_loss=SHORT, refit_loss=GOOD), "refit", True),
        (with_(drift=(), champion_loss=SHORT, refit_loss=SHORT), "warm search", True),
        (with_(drift=(), champion_loss=SHORT, why_no_refit="model.name: 'a' before"), "warm search", True),
        (with_(drift=(), share_changed=0.3), "refit", False),
        (with_(drift=(), share_changed=0.3, refit_loss=GOOD), "refit", True),
        (with_(drift=(), champion_loss=UNSURE), "re-evaluate", True),
        (with_(drift=(), champion_loss=SHORT, refit_loss=UNSURE), "refit", True),
        (with_(drift=(), refresh_in_vain=2), "skip", True),
        (with_(drift=(), refresh_in_vain=2, share_changed=0.3), "refit", False),
        (with_(refresh_in_vain=2, drift=("all: effect 0.1",)), "warm search", True),
        (Facts(has_champion=False, refresh_in_vain=2, share_changed=0.1), "skip", True),
        (Facts(has_champion=False, refresh_in_vain=2, share_changed=0.3), "warm search", True),
        (Facts(has_champion=False, refresh_in_vain=2, new_classes=("rust",)), "warm search", True),
    ],
)
def test_the_cheapest_rung_that_will_do_is_taken(facts, kind, is_last):
    rung = next_rung(facts, rule=RULE)
    assert (rung.kind, rung.is_last) == (kind, is_last)


def test_a_decision_says_every_number_that_led_to_it():
    rung = next_rung(with_(drift=(), champion_loss=SHORT, refit_loss=SHORT), rule=RULE)
    assert rung.reasons == (
        "10 images (10.0%) have changed, without drift",
        "the champion has lost: 0.6000 on 40 of them against 0.8100 on the champion's own test images, "
        "a loss of 0.1000 at least, more than 0.02",
        "its configuration trained again is short too: 0.6000 on 40 validation images, old and new, against 0.8100 on the "
        "champion's own test images, a loss of 0.1000 at least, more than 0.02",
    )


def test_what_could_not_be_compared_is_not_called_the_same():
    (first, *_) = next_rung(
        with_(drift=(), why_drift_unknown="1 new image", why_champion_not_asked="too few"), rule=RULE
    ).reasons
    assert first == "10 images (10.0%) have changed, whether they drifted cannot be told (1 new image)"


def test_after_a_search_that_brought_no_champion_what_has_changed_since_counts():
    assert next_rung(with_(drift=(), refresh_in_vain=2), rule=RULE).reasons == (
        "10 images (10.0%) have changed since refresh 2, without drift",
        "no new champion came of refresh 2; that few are no reason to train again",
    )


def test_too_few_are_not_called_good():
    rung = next_rung(with_(drift=(), champion_loss=UNSURE), rule=RULE)
    told = "0.0000 on 3 of them against 0.8100 on the champion's own test images, too few to tell"
    assert rung.reasons[-1] == f"whether the champion is still good: {told}"


def test_an_uncertain_loss_is_no_loss():
    uncertain = Loss(value=0.5, level=0.8, low=-0.01, num_images=3)
    assert next_rung(with_(drift=(), champion_loss=uncertain), rule=RULE).kind == "re-evaluate"


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_a_search_waits_for_the_cool_down():
    rule = RefreshSection(cooldown_hours=24)
    ended = NOW - timedelta(hours=5)
    found = wait_before_search(NOW, last_ended=ended, gpu_hours=0, rule=rule)
    assert found.until == NOW + timedelta(hours=19)
    assert wait_before_search(found.until, last_ended=ended, gpu_hours=0, rule=rule) is None
    assert wait_before_search(NOW, last_ended=None, gpu_hours=0, rule=rule) is None


def test_a_month_whose_hours_are_spent_is_waited_out():
    rule = RefreshSection(gpu_hours_per_month=10)
    found = wait_before_search(NOW, last_ended=None, gpu_hours=10.0, rule=rule)
    assert found.until == datetime(2026, 12, 1, tzinfo=UTC)
    assert wait_before_search(NOW, last_ended=None, gpu_hours=9.9, rule=rule) is None


def test_only_this_months_searches_count():
    moments = [(NOW, 2.0), (datetime(2026, 11, 1, tzinfo=UTC), 3.0), (datetime(2026, 10, 31, 23, 59, tzinfo=UTC), 4.0)]
    assert hours_of_month(moments, now=NOW) == 5.0
