"""When something is due, by hand and across the days when clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from search.watch.schedule import (
    Cron,
    Every,
    OnChange,
    jittered,
    missed,
    next_due,
    parse_cron,
    parse_duration,
    parse_every,
    parse_when,
    pause_seconds,
)
from trainable.errors import UserError

BERLIN = ZoneInfo("Europe/Berlin")  # +1 in winter, +2 from 2026-03-29 02:00 to 2026-10-25 03:00
NEW_YORK = ZoneInfo("America/New_York")


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def berlin(text):
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def dues(when, *, after, count):
    found = []
    for _ in range(count):
        after = next_due(when, after=after)
        found.append(after)
    return found


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10m", 600), ("6h", 21600), ("2d", 172800), (" 1h ", 3600)]
)
def test_a_time_is_a_number_with_its_unit(text, seconds):
    assert parse_duration(text, where="--poll") == seconds


@pytest.mark.parametrize("text", ["", "5", "-5m", "5 minutes", "1.5h", "6H", "5w", "h", "9" * 5000 + "d", "٣m"])
def test_any_other_time_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="^--every: .* is no time; .* such as 30s, 10m, 6h or 2d$"):
        parse_every(text)


def test_a_time_has_two_ends():
    assert parse_duration("366d", where="--every") == parse_duration("8784h", where="--every") == 366 * 86400
    for text in ("367d", "8785h", "9999999d", "999999999999999999d"):
        with pytest.raises(UserError, match=f"^--every: '{text}' is too long; must be 366d or shorter$"):
            parse_every(text)
    for text in ("0s", "0d"):
        with pytest.raises(UserError, match=f"^--every: '{text}' is too short; must be 1s or longer$"):
            parse_every(text)
    assert parse_duration("0s", where="--jitter", least=0) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has 0 fields"),
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * *", "has 6 fields"),
        ("@daily", "has 1 fields"),
        ("60 3 * * *", r": minute '60'; must be 0-59, \* or \*/n$"),
        ("0 25 * * *", r": hour '25'; must be 0-23, \* or \*/n$"),
        ("0 3 * 13 *", r": month '13'; must be 1-12 or JAN-DEC, \* or \*/n$"),
        ("0 3 * * MOON", r": weekday 'MOON'; must be 0-7 or SUN-SAT, \* or \*/n$"),
        ("0 3 5-1 * *", r": day '5-1'; must be 1-31 or L, \* or \*/n$"),
        ("*/0 3 * * *", r": minute '\*/0'; must be "),
        ("0 3 31 2 *", "never comes true$"),
    ],
)
def test_a_cron_expression_that_is_none_is_refused_in_one_line(text, said):
    with pytest.raises(UserError, match=said) as caught:
        parse_cron(text, zone=UTC)
    assert str(caught.value).startswith("--cron: ")
    assert "\n" not in str(caught.value)


def test_the_zone_is_asked_for_by_cron_alone():
    def no_zone():
        raise UserError("TZ: none")

    assert parse_when(cron=None, every="6h", on_change=False, poll=None, zone=no_zone) == Every(21600)
    assert parse_when(cron=None, every=None, on_change=True, poll=None, zone=no_zone) == OnChange(300)
    with pytest.raises(UserError, match="^TZ: none$"):
        parse_when(cron="0 3 * * *", every=None, on_change=False, poll=None, zone=no_zone)


def test_a_schedule_says_itself_as_it_is_written():
    written = [parse_every(text) for text in ("30s", "90m", "120m", "48h")]
    assert [str(when) for when in written] == ["every 30s", "every 90m", "every 2h", "every 2d"]
    assert str(parse_cron(" 0  3 * * * ", zone=UTC)) == "cron '0 3 * * *'"


def test_cron_is_due_when_its_zone_says_so():
    after = utc("2026-01-15 12:00")
    assert next_due(Cron("0 3 * * *", UTC), after=after) == utc("2026-01-16 03:00")
    assert next_due(Cron("0 3 * * *", BERLIN), after=after) == utc("2026-01-16 02:00")
    assert next_due(Cron("0 3 * * *", BERLIN), after=utc("2026-07-15 12:00")) == utc("2026-07-16 01:00")
    assert next_due(Cron("0 3 * * *", NEW_YORK), after=after) == utc("2026-01-16 08:00")
    assert next_due(Cron("*/20 9-10 * * MON", UTC), after=utc("2026-01-16 00:00")) == utc("2026-01-19 09:00")
    assert next_due(Cron("0 0 29 2 *", UTC), after=after) == utc("2028-02-29 00:00")


def test_a_due_time_is_later_than_the_one_before_to_the_second():
    when = Cron("0 3 * * *", UTC)
    assert next_due(when, after=utc("2026-01-16 02:59:59")) == utc("2026-01-16 03:00")
    assert next_due(when, after=utc("2026-01-16 03:00")) == utc("2026-01-17 03:00")
    assert next_due(when, after=utc("2026-01-16 02:59:59.999999")) == utc("2026-01-16 03:00")


def test_a_time_that_the_clocks_leave_out_is_due_when_they_have():
    when = Cron("30 2 * * *", BERLIN)
    assert dues(when, after=berlin("2026-03-28 00:00"), count=3) == [
        utc("2026-03-28 01:30"),
        utc("2026-03-29 01:00"),  # 03:00 by the new clocks
        utc("2026-03-30 00:30"),
    ]


def test_a_time_that_comes_twice_is_due_once():
    when = Cron("30 2 * * *", BERLIN)
    expected = [utc("2026-10-24 00:30"), utc("2026-10-25 00:30"), utc("2026-10-26 01:30")]
    assert dues(when, after=berlin("2026-10-24 00:00"), count=3) == expected
    second_pass = utc("2026-10-25 01:10")  # 02:10 for the second time
    assert next_due(when, after=second_pass) == expected[2]


def test_where_minute_or_hour_begin_with_a_star_the_clocks_are_followed():
    when = Cron("30 */2 * * *", BERLIN)
    assert dues(when, after=berlin("2026-03-29 00:00"), count=2) == [utc("2026-03-28 23:30"), utc("2026-03-29 02:30")]
    assert dues(when, after=berlin("2026-10-25 01:00"), count=2) == [utc("2026-10-25 00:30"), utc("2026-10-25 01:30")]


def test_every_hour_stays_every_hour_when_the_clocks_change():
    for day in ("2026-03-28", "2026-10-24"):
        found = dues(Cron("0 * * * *", BERLIN), after=berlin(f"{day} 12:00"), count=36)
        assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


def test_an_interval_is_as_long_on_days_when_the_clocks_change():
    before = berlin("2026-03-28 12:00")
    assert next_due(Every(86400), after=before) == utc("2026-03-29 11:00")
    assert next_due(Every(86400), after=before).astimezone(BERLIN).hour == 13


def test_intervals_count_from_the_last_time_due():
    last = utc("2026-01-01 00:10")
    assert next_due(Every(3600), after=utc("2026-01-01 00:10"), last=last) == utc("2026-01-01 01:10")
    assert next_due(Every(3600), after=utc("2026-01-01 01:09:59"), last=last) == utc("2026-01-01 01:10")
    assert next_due(Every(3600), after=utc("2026-01-01 05:30"), last=last) == utc("2026-01-01 06:10")


def test_a_clock_that_was_set_back_does_not_put_the_next_time_off():
    assert next_due(Every(60), after=utc("2026-01-01 00:00"), last=utc("2030-01-01 00:00")) == utc("2026-01-01 00:01")


@pytest.mark.parametrize("when", [Every(21600), Cron("0 */6 * * *", UTC)])
def test_what_was_never_due_or_due_while_nobody_watched_is_missed(when):
    last = utc("2026-01-01 06:00")
    assert missed(when, last=None, now=last)
    assert not missed(when, last=last, now=utc("2026-01-01 11:59:59"))
    assert missed(when, last=last, now=utc("2026-01-01 12:00"))
    assert missed(when, last=last, now=utc("2026-02-01 00:00"))


def test_jitter_is_the_same_for_whoever_asks_and_another_for_other_names_and_times():
    when, due = Cron("0 3 * * *", UTC), utc("2026-01-16 03:00")
    found = jittered(when, due=due, name="cells", most_seconds=300)
    assert found == jittered(when, due=due.astimezone(BERLIN), name="cells", most_seconds=300)
    others = {jittered(when, due=due, name=f"cells{number}", most_seconds=300) for number in range(200)}
    assert len(others) == 200
    late = [(one - due).total_seconds() for one in others]
    assert 0 <= min(late) < 15  # of 200 even draws
    assert 285 < max(late) < 300
    assert found - due != jittered(when, due=due + timedelta(days=1), name="cells", most_seconds=300) - due - timedelta(
        days=1
    )
    assert jittered(when, due=due, name="cells", most_seconds=0) == due


@pytest.mark.parametrize(("when", "most"), [(Every(60), 6), (Every(86400), 300), (Cron("*/5 * * * *", UTC), 30)])
def test_without_a_number_jitter_is_a_tenth_of_the_time_between_two(when, most):
    due = utc("2026-01-16 03:00")
    late = [(jittered(when, due=due, name=str(i), most_seconds=None) - due).total_seconds() for i in range(200)]
    assert 0.9 * most < max(late) < most


def test_pauses_grow_to_an_hour():
    assert [pause_seconds(number) for number in (1, 2, 3, 6, 7, 8, 5000)] == [60, 120, 240, 1920, 3600, 3600, 3600]
