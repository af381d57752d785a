"""Scorecards and verdicts from the log itself, on a real Postgres, where the truth is known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from spotlab_pipelines.database.tables import ModelVersion
from spotlab_pipelines.errors import NotEnoughData
from spotlab_pipelines.experiments.judging import compare, finished_day, judge_challengers, look, looks
from spotlab_pipelines.experiments.labels import paired
from spotlab_pipelines.experiments.scorecards import (
    Group,
    VersionScorecard,
    interruption_of,
    scorecard_of,
    version_scorecards,
    version_values,
)
from spotlab_pipelines.experiments.verdict import VerdictRules
from spotlab_pipelines_tests.experiments.factory import ACCOUNT, CHALLENGER, CHAMPION, register
from spotlab_pipelines_tests.experiments.labelled_log import FIRST, START, write_days

RULES = VerdictRules(looks_max=4)
DAY = timedelta(days=1)


def after(days: float) -> datetime:
    return FIRST + days * DAY


def add_challenger(owner: sa.Engine, version: str, said: str) -> None:
    """Register one more challenger, which says `said`, an SQL expression, of all that the first one predicted."""
    with owner.begin() as connection:
        first = connection.execute(sa.select(ModelVersion).where(ModelVersion.version == CHALLENGER)).mappings().one()
        family, number = version.split("/")
        kept = {name: value for name, value in first.items() if name not in ("id", "created_at", "updated_at")}
        named = {"version": version, "family": family, "number": int(number)}
        connection.execute(sa.insert(ModelVersion).values(kept | named))
        changed = {"model_version": f"'{version}'", "p_current": said}
        names = [each["name"] for each in sa.inspect(connection).get_columns("experiment_logs") if each["name"] != "id"]
        connection.exec_driver_sql(
            f"insert into experiment_logs ({', '.join(names)}) "
            f"select {', '.join(changed.get(name, name) for name in names)} from experiment_logs "
            f"where model_version = '{CHALLENGER}'"
        )


def test_a_scorecard_counts_for_who_predicted_and_leaves_the_censored_out(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    events = write_days(owner, 5)
    with owner.begin() as connection:
        # One that its owner stopped, one that is still watched, and all under another version by now.
        connection.exec_driver_sql(
            "update interruption_outcomes set watched_until = window_start + interval '1 hour', ended_by = 'owner' "
            "where instance_id = (select min(instance_id) from interruption_outcomes where interrupted_at is null)"
        )
        connection.exec_driver_sql(
            "update interruption_outcomes set watched_until = window_start + interval '1 hour', settled = false "
            "where instance_id = (select max(instance_id) from interruption_outcomes where interrupted_at is null)"
        )
    [card] = version_scorecards(engine, CHALLENGER, horizon_h=6, since=FIRST)
    assert (card.predictions, card.censored, card.pending) == (300, 1, 1)
    assert card.card is not None
    assert (card.card.n, card.card.events) == (298, events)
    assert card.card.roc_auc > 0.7
    assert card.skill is not None
    assert card.skill.low < card.card.brier_skill < card.skill.high
    assert card.skill.mean == pytest.approx(card.card.brier_skill)
    [poor] = version_scorecards(engine, CHAMPION, horizon_h=6, since=FIRST)
    assert poor.card is not None
    assert poor.card.roc_auc == 0.5
    # Nothing was interrupted within the first hour.
    [soon] = version_scorecards(engine, CHALLENGER, horizon_h=1, since=FIRST)
    assert soon.card is not None
    assert (soon.card.events, soon.skill) == (0, None)
    assert soon.row()["roc_auc"] is None


def test_an_interruption_counts_no_sooner_than_survival_would(owner: sa.Engine, engine: sa.Engine) -> None:
    """Of the latest windows interruptions are known first: alone they would make every version look too sure."""
    register(owner)
    events = write_days(owner, 1)
    open_since = "set watched_until = window_start + interval '4 hours', settled = false where interrupted_at is null"
    with owner.begin() as connection:
        connection.exec_driver_sql(f"update interruption_outcomes {open_since}")

    def known() -> tuple[int, int]:
        [found] = version_scorecards(engine, CHALLENGER, horizon_h=6, since=FIRST)
        return 0 if found.card is None else found.card.events, found.pending

    assert known() == (0, 60)
    # A single instance that was taken is watched no more; that the account was read later says that this is all.
    for at, expected in ((5, (0, 60)), (6.5, (events, 60 - events))):
        with owner.begin() as connection:
            connection.execute(
                sa.text(
                    "insert into scrapes (id, source, account_id, fetched_at, row_count) "
                    "values (gen_random_uuid(), 'interruption_events', :a, :at, 0)"
                ),
                {"a": ACCOUNT, "at": FIRST + timedelta(hours=at)},
            )
        assert known() == expected


def test_scorecards_by_group_add_up_to_the_whole(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner, ACCOUNT, "210000000002")
    write_days(owner, 3)
    write_days(owner, 3, account_id="210000000002", seed=2, first=date(2026, 10, 4))
    groups: list[tuple[Group, list[str]]] = [
        ("region", ["eu-west-1", "us-east-1"]),
        ("account", [ACCOUNT, "210000000002"]),
        ("environment", ["LAB"]),
        ("family", ["m5"]),
    ]
    for by, names in groups:
        cards = version_scorecards(engine, CHALLENGER, horizon_h=6, since=FIRST, by=by)
        assert [card.group for card in cards] == names
        assert sum(card.predictions for card in cards) == 360
    [one] = version_scorecards(engine, CHALLENGER, horizon_h=6, since=FIRST, account_id=ACCOUNT)
    assert one.predictions == 180
    with pytest.raises(NotEnoughData, match="since 2027-01-01"):
        version_scorecards(engine, CHALLENGER, horizon_h=6, since=datetime(2027, 1, 1, tzinfo=UTC))


def test_decisions_are_weighed_with_the_accounts_own_cost(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    events = write_days(owner, 2)
    with owner.begin() as connection:
        connection.exec_driver_sql("update accounts set interruption_cost_usd = 10")
        connection.exec_driver_sql(
            "update experiment_logs set decision = 'FALLBACK_ON_DEMAND', to_price_usd_per_hour = 0.10 "
            f"where model_version = '{CHALLENGER}'"
        )
        connection.exec_driver_sql(
            "insert into evaluations (account_id, window_start, step, state, snapshot_id, details) "
            "select account_id, window_start, row_number() over (), 'logged', min(snapshot_id), "
            "jsonb_build_object('on_demand_usd_per_hour', jsonb_build_object(min(from_pool), 0.10)) "
            "from experiment_logs group by account_id, window_start"
        )
    values = version_values(engine, [CHAMPION, CHALLENGER], horizon_h=6, since=FIRST)
    fled, stayed = values[CHALLENGER], values[CHAMPION]
    assert (fled.avoided, stayed.avoided) == (events, 0)
    # 0.05 USD/h more, for 3 h until an interruption and 6 h without one.
    assert fled.cost_per_avoided_usd * events == pytest.approx(0.05 * (3 * events + 6 * (120 - events)))
    assert stayed.regret_usd == pytest.approx(events * (10 - 3 * 0.05))
    assert version_values(engine, [CHAMPION], horizon_h=6, since=FIRST)[CHAMPION].metrics() == stayed.metrics()


def test_a_verdict_that_is_too_old_is_followed_by_a_comparison_of_later_days_alone(
    owner: sa.Engine, engine: sa.Engine
) -> None:
    once = VerdictRules(looks_max=1)
    register(owner)
    write_days(owner, 24)
    first = look(engine, CHAMPION, CHALLENGER, now=after(24.5), rules=once)
    write_days(owner, 26, first=START + 24 * DAY, better=False)
    later = look(engine, CHAMPION, CHALLENGER, now=after(50.5), rules=once)
    assert (first.verdict, later.new, later.day) == ("promote", False, first.day)
    anew = look(engine, CHAMPION, CHALLENGER, now=after(54.5), rules=once)
    assert (anew.verdict, anew.new, anew.look, anew.predictions) == ("reject", True, 1, 26 * 60)


def test_on_record_is_how_many_of_the_champions_predictions_the_challenger_had_too(
    owner: sa.Engine, engine: sa.Engine
) -> None:
    register(owner)
    write_days(owner, 24)
    with owner.begin() as connection:
        connection.exec_driver_sql(
            f"update experiment_logs set p_current = null, decision = 'SKIP' where model_version = '{CHALLENGER}' "
            "and instance_id like '%%0'"
        )
        silent = connection.exec_driver_sql(
            "select count(*) from interruption_outcomes where instance_id like '%%0'"
        ).scalar_one()
    found = look(engine, CHAMPION, CHALLENGER, now=after(24.5), rules=RULES)
    with engine.connect() as connection:
        share = looks(connection, CHAMPION, CHALLENGER)[-1].answered_share
    assert 0 < silent < 24 * 60
    assert found.predictions == 24 * 60 - silent
    assert share == pytest.approx(1 - silent / (24 * 60))


def test_several_that_look_at_once_take_one_look(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    write_days(owner, 12)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(look, engine, CHAMPION, CHALLENGER, now=after(12.5), rules=RULES) for _ in range(4)]
        assert sum(answer.result().new for answer in answers) == 1


def test_windows_that_reach_the_same_interruption_have_its_number() -> None:
    end, other = FIRST + timedelta(hours=5), FIRST + timedelta(hours=6)
    rows = pd.DataFrame(
        [
            ("a", "i-1", "interrupted", True, end),
            ("a", "i-1", "interrupted", True, end),
            ("a", "i-1", "survived", True, end),
            ("a", "i-2", "interrupted", True, end),
            ("b", "i-1", "interrupted", True, end),
            ("a", "i-1", "interrupted", True, other),
            ("a", "i-3", "survived", True, None),
            ("a", "i-3", "interrupted", False, end),
        ],
        columns=["account_id", "instance_id", "outcome", "final", "interrupted_at"],
    )
    assert interruption_of(rows).tolist() == [0, 0, -1, 2, 3, 1, -1]


def copies(*, hours: int = 0, days: int = 0, other_region: bool = False) -> VersionScorecard:
    """The scorecard of one row a day, every third day, each nine times more: hours or days later, or elsewhere."""
    generator = np.random.default_rng(5)
    risk = generator.choice([0.1, 0.6], size=60)
    start = pd.Timestamp(FIRST) + pd.to_timedelta(np.arange(60) * 3, unit="D")
    rows = pd.DataFrame(
        {
            "window_start": start, "region": "us-east-1", "p_current": risk, "final": True, "retrospective": False,
            "outcome": np.where(generator.random(60) < risk, "interrupted", "survived"),
            "account_id": "a", "instance_id": [f"i-{number}" for number in range(60)], "interrupted_at": start,
        }
    )  # fmt: skip
    many = [
        rows.assign(
            window_start=start + pd.Timedelta(days=days * copy, hours=hours * copy),
            region=f"eu-west-{copy}" if other_region else "us-east-1",
        )
        for copy in range(10 if hours or days or other_region else 1)
    ]
    return scorecard_of(pd.concat(many, ignore_index=True), CHALLENGER, 6)


def test_what_repeats_within_a_region_and_day_makes_a_skill_no_surer() -> None:
    def width(found: VersionScorecard) -> float:
        assert found.skill is not None
        return found.skill.high - found.skill.low

    once = copies()
    assert once.skill is not None
    again = copies(hours=2)
    assert (once.predictions, again.predictions) == (60, 600)
    assert width(again) == pytest.approx(width(once), rel=1e-6)
    # What another region or another day says is news.
    assert width(copies(other_region=True)) < 0.5 * width(once)
    assert width(copies(days=1000)) < 0.5 * width(once)


def test_each_day_is_looked_at_once_and_the_looks_before_are_remembered(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    write_days(owner, 12)
    first = look(engine, CHAMPION, CHALLENGER, now=after(12.5), rules=RULES)
    # The windows of the twelfth day can be interrupted until six hours after its end.
    assert (first.day, first.look, first.new) == (date(2026, 10, 12), 1, True)
    assert (first.predictions, first.blocks) == (12 * 60, 12 * 2), "blocks are days of the two regions, not rows"
    assert not look(engine, CHAMPION, CHALLENGER, now=after(12.9), rules=RULES).new
    write_days(owner, 12, first=date(2026, 10, 13))
    second = look(engine, CHAMPION, CHALLENGER, now=after(24.5), rules=RULES)
    assert (second.look, second.predictions, second.verdict) == (2, 24 * 60, "promote")
    with engine.connect() as connection:
        rows = looks(connection, CHAMPION, CHALLENGER)
    assert [row.look for row in rows] == [1, 2]
    assert rows[0].information < rows[1].information
    assert second.why == rows[1].why
    assert second.ece == pytest.approx(rows[1].ece)
    # Decided is decided: more days are no more looks.
    write_days(owner, 2, first=date(2026, 10, 25))
    again = look(engine, CHAMPION, CHALLENGER, now=after(26.5), rules=RULES)
    assert (again.new, again.verdict, again.day) == (False, "promote", second.day)


def test_the_calibration_on_record_is_the_challengers(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    write_days(owner, 12)
    found = look(engine, CHAMPION, CHALLENGER, now=after(12.5), rules=RULES)
    with owner.connect() as connection:
        # It says one of two things: each is a bin.
        bins = connection.exec_driver_sql(
            "select l.p_current, count(*), avg((o.interrupted_at is not null)::int)::float8 from experiment_logs l "
            "join interruption_outcomes o using (account_id, window_start, instance_id) "
            f"where l.model_version = '{CHALLENGER}' and l.horizon_h = 6 group by l.p_current order by 1"
        ).all()
    assert [said for said, _, _ in bins] == [0.02, 0.3]
    of_all = sum(count for _, count, _ in bins)
    assert found.ece == pytest.approx(sum(count * abs(said - share) for said, count, share in bins) / of_all)
    with engine.connect() as connection:
        [row] = looks(connection, CHAMPION, CHALLENGER)
    assert row.ece == pytest.approx(found.ece)
    assert row.predicted_share == pytest.approx(sum(count * said for said, count, _ in bins) / of_all)
    assert row.interrupted_share == pytest.approx(sum(count * share for _, count, share in bins) / of_all)


def test_every_challenger_has_a_verdict_of_its_own(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    write_days(owner, 24)
    # Another one, which is the surer the less it should be.
    add_challenger(owner, "logistic/2", "0.9 - p_current")
    found = judge_challengers(engine, now=after(24.5), rules=VerdictRules(looks_max=1))
    assert [(each.challenger, each.verdict) for each in found] == [(CHALLENGER, "promote"), ("logistic/2", "reject")]
    assert {each.champion for each in found} == {CHAMPION}


def test_the_same_instance_id_in_two_accounts_is_two_instances(owner: sa.Engine, engine: sa.Engine) -> None:
    other = "210000000002"
    register(owner, ACCOUNT, other)
    write_days(owner, 2)
    write_days(owner, 2, account_id=other, seed=2)
    with engine.connect() as connection:
        rows = paired(connection, CHAMPION, CHALLENGER, horizon_h=6, since=FIRST)
        said = connection.exec_driver_sql(
            "select account_id || instance_id || date(window_start at time zone 'utc'), p_current from experiment_logs "
            f"where model_version = '{CHALLENGER}' and horizon_h = 6"
        ).all()
    assert len(rows) == len(said) == 240
    assert rows["instance_id"].nunique() == 120, "each account has an instance of each id"
    of = rows["account_id"] + rows["instance_id"] + rows["window_start"].dt.strftime("%Y-%m-%d")
    assert dict(zip(of, rows["p_challenger"], strict=True)) == {row[0]: row[1] for row in said}


def test_too_little_is_on_record_and_spends_no_look(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    write_days(owner, 2)
    found = look(engine, CHAMPION, CHALLENGER, now=after(2.5))
    assert (found.verdict, found.look, found.new) == ("insufficient data", 0, True)
    with engine.connect() as connection:
        assert [row.information for row in looks(connection, CHAMPION, CHALLENGER)] == [None]


def test_a_pair_without_common_predictions_has_no_record(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    [found] = judge_challengers(engine, now=after(1))
    assert (found.verdict, found.day, found.new) == ("insufficient data", None, False)
    with engine.connect() as connection:
        assert looks(connection, CHAMPION, CHALLENGER) == []


def test_past_windows_prove_nothing_but_can_be_compared(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    write_days(owner, 24)
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "insert into evaluations (account_id, window_start, step, state, snapshot_id, details) "
            "select account_id, window_start, row_number() over (), 'logged', min(snapshot_id), "
            "'{\"retrospective\": true}' from experiment_logs group by account_id, window_start"
        )
    found = look(engine, CHAMPION, CHALLENGER, now=after(30), rules=RULES)
    assert (found.verdict, found.predictions) == ("insufficient data", 0)
    assert found.why.startswith("No prediction of both has an outcome yet; ")
    both = compare(engine, CHAMPION, CHALLENGER, horizon_h=6, since=FIRST)
    assert both is not None
    assert (both.first.version, both.second.version, both.verdict.verdict) == (CHAMPION, CHALLENGER, "promote")
    assert both.second.retrospective == both.second.predictions == 24 * 60
    assert both.on_record is None


def test_judging_goes_on_from_the_present_champion(owner: sa.Engine, engine: sa.Engine) -> None:
    register(owner)
    write_days(owner, 24, better=False)
    [found] = judge_challengers(engine, now=after(24.5), rules=VerdictRules(looks_max=1))
    assert (found.champion, found.challenger, found.verdict) == (CHAMPION, CHALLENGER, "reject")
    with owner.begin() as connection:
        connection.exec_driver_sql("update model_registry set role = 'none' where role = 'champion'")
    assert judge_challengers(engine, now=after(24.5)) == []


def test_a_day_ends_with_its_last_outcome_and_waits_for_it_no_longer_than_two_days() -> None:
    start = pd.to_datetime(["2026-10-01T10:00Z", "2026-10-02T10:00Z", "2026-10-03T10:00Z"], utc=True)
    rows = pd.DataFrame({"window_start": start, "final": [True, False, True]})
    assert finished_day(rows, now=after(3.3)) == date(2026, 10, 1)
    assert finished_day(rows, now=after(4.3)) == date(2026, 10, 3), "two days and six hours after the second ended"
    known = rows.assign(final=True)
    assert finished_day(known, now=after(3.2)) == date(2026, 10, 2), "the third has five of its six hours to go"
    assert finished_day(known, now=after(3.3)) == date(2026, 10, 3)
    assert finished_day(known.iloc[:0], now=after(9)) is None


def test_a_scorecard_counts_an_interruption_once_before_it_gives_an_interval() -> None:
    windows = pd.date_range("2026-03-01", periods=240, freq="h", tz="UTC")
    gone = windows[-1] + timedelta(minutes=30)
    rows = pd.DataFrame(
        {
            "account_id": "a", "instance_id": ["i-1"] * 240 + ["i-2"] * 240, "region": "us-east-1",
            "window_start": [*windows, *windows], "final": True, "retrospective": False,
            "outcome": ["survived"] * 228 + ["interrupted"] * 12 + ["survived"] * 240,
            "interrupted_at": [pd.NaT] * 228 + [gone] * 12 + [pd.NaT] * 240,
            "p_current": np.linspace(0.01, 0.3, 480),
        }
    )  # fmt: skip
    rows["interrupted_at"] = pd.to_datetime(rows["interrupted_at"], utc=True)
    card = scorecard_of(rows, "a/1", 12)
    assert card.card is not None
    assert card.skill is not None
    assert (card.card.events, np.isinf(card.skill.low)) == (12, True)
