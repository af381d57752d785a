"""`spotlab market`: a person takes for the truth what a scrape refuses."""

from __future__ import annotations

import pytest
import redis as redis_py
import sqlalchemy as sa

from spotlab_pipelines.market.cache import risk_key
from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.market.feeds import feed_server

TYPES = {"m5.large": {"s": 60, "r": 1}}


def test_a_feed_that_lost_much_is_accepted_by_hand_and_on_record(
    spotlab: Spotlab, engine: sa.Engine, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spotlab_pipelines.settings import get_settings

    with feed_server() as feed:
        monkeypatch.setenv("SPOTLAB_ADVISOR_URL", feed.url)
        get_settings.cache_clear()
        feed.publish({"us-east-1": {"Linux": TYPES}, "us-west-2": {"Linux": TYPES}})
        assert spotlab("market", "accept-advisor", "--json").json[0]["regions"] == 2
        feed.publish({"us-east-1": {"Linux": TYPES}})
        (answer,) = spotlab("market", "accept-advisor", "--json").json
        assert (answer["rows"], answer["regions"]) == (1, 1)
        feed.body = b"<html>"
        assert spotlab("market", "accept-advisor").code == 1, "valid it must be all the same"
    assert redis.exists(risk_key("us-east-1"))
    with engine.connect() as connection:
        by = connection.execute(sa.text("select provenance ->> 'loss_accepted_by' from scrapes order by fetched_at"))
        assert [bool(who) for (who,) in by] == [True, True, False]
