"""What the demo prints: failures look like failures, small probabilities are not zero, nothing claims to act."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from rich.console import Console

from spotlab_pipelines.cli.decisions import decisions_table
from spotlab_pipelines.experiments.judging import Comparison
from spotlab_pipelines.experiments.pages import EXPERIMENT
from spotlab_pipelines.experiments.scorecards import scorecard_of
from spotlab_pipelines.experiments.verdict import Verdict
from spotlab_pipelines.inference.mlflow_store import experiment_id, mlflow_client
from spotlab_pipelines.settings import Settings
from spotlab_pipelines_tests.demo.holdings import Holdings, holdings
from spotlab_pipelines_tests.demo.show import (
    how_to_look_further,
    print_scorecards,
    print_stores,
    told,
    versions_page,
)
from spotlab_pipelines_tests.demo.stage import Judgement
from spotlab_pipelines_tests.local_aws.server import LocalAws


@pytest.fixture
def screen() -> Console:
    return Console(width=172, record=True, force_terminal=False)


def decision(**changes: object) -> dict[str, object]:
    return {
        "instance_id": "i-1", "from_pool": "m5.large:use1-az1:Linux/UNIX", "to_pool": "c5.large:use1-az2:Linux/UNIX",
        "p_current_1h": 0.00004, "p_current_6h": 0.00006, "p_current_12h": 0.25,
        "from_cost_usd_per_hour": 0.05, "to_cost_usd_per_hour": 0.03, "model_version": "advisor-rate/1",
        "model_role": "champion", "acting": True, "shadow": False, "decision": "SWITCH",
        "reason": "Its bucket is [0,5) %.", **changes,
    }  # fmt: skip


def test_a_step_that_fails_is_not_ticked_off(screen: Console) -> None:
    with told(screen, "Well"):
        pass
    with told(screen, "Badly") as say:
        say.fail("spot_prices failed: Throttled: [slowly]")
    with pytest.raises(ValueError, match="broken"), told(screen, "Broken"):
        raise ValueError("broken")
    well, badly, broken = screen.export_text().splitlines()
    assert well.startswith("  ✓ Well")
    assert badly.startswith("  ✗ Badly")
    assert "Throttled: [slowly]" in badly
    assert broken.startswith("  ✗ Broken")


def test_scorecards_tell_the_interval_and_who_is_judged_against_whom(screen: Console) -> None:
    start = pd.Timestamp("2026-03-01T00:00Z")
    rows = pd.DataFrame(
        {
            "window_start": [start + pd.Timedelta(days=day) for day in range(30) for _ in range(10)],
            "region": "us-east-1", "outcome": (["interrupted"] * 2 + ["survived"] * 8) * 30, "final": True,
            "retrospective": True, "p_current": ([0.9] * 2 + [0.1] * 8) * 30,
            "account_id": "1", "instance_id": [f"i-{number}" for number in range(10)] * 30,
        }
    )  # fmt: skip
    rows["interrupted_at"] = rows["window_start"].where(rows["outcome"] == "interrupted")
    champion, challenger = (scorecard_of(rows, version, 6) for version in ("advisor-rate/1", "logistic/1"))
    verdict = Verdict("hold", "No difference is shown.", 1, 300, 60, 30, None, None)
    print_scorecards(screen, Judgement([champion, challenger], [Comparison(champion, challenger, verdict, None, {})]))
    text = screen.export_text()
    first, second = (line for line in text.splitlines() if line.startswith("│"))
    assert first.split("│")[1:7:5] == [" advisor-rate/1 ", " 1.000   "]
    assert "champion" in first
    for shown in ("300", " 60 ", "+0.938 [+0.938, +0.938]", "hold"):
        assert shown in second
    assert "logistic/1 against advisor-rate/1, a single look: No difference is shown." in text
    assert "Up to 300 of the predictions of a version are of past windows" in text


def test_a_tiny_probability_is_not_shown_as_none(screen: Console) -> None:
    screen.print(decisions_table("one", pd.DataFrame([decision()])))
    text = screen.export_text()
    assert "<0.01 / 0.01 / 25.00" in text
    assert "[0,5) %" in text


@pytest.mark.parametrize("width", [100, 172])
def test_a_decision_and_what_is_copied_are_whole_on_any_terminal(width: int) -> None:
    narrow = Console(width=width, record=True, force_terminal=False)
    narrow.print(
        decisions_table("one", pd.DataFrame([decision(decision="FALLBACK_ON_DEMAND", instance_id="i-" + 17 * "0")]))
    )
    text = narrow.export_text()
    for whole in ("FALLBACK_ON_DEMAND", "i-" + 17 * "0", "m5.large:use1-az1", "0.0500 → 0.0300", "advisor-rate/1"):
        assert whole in text


def test_the_versions_are_found_in_mlflow_without_its_first_page(settings: Settings, mlflow_database: str) -> None:
    ui, mode = settings.mlflow_ui, "workflowType=machine_learning"
    assert versions_page(settings) == f"{ui}/#/experiments?{mode}"
    client = mlflow_client(settings)
    made = experiment_id(client, settings, EXPERIMENT)
    assert versions_page(settings) == f"{ui}/#/experiments/{made}/runs?{mode}"
    assert "Compare" in client.get_experiment(made).tags["mlflow.note.content"]


def test_an_accounts_name_is_only_text(screen: Console) -> None:
    screen.print(decisions_table("prod [/eu]", pd.DataFrame([decision(model_version="[/x]/1")])))
    text = screen.export_text()
    assert "prod [/eu]" in text
    assert "[/x]/1" in text


def test_a_decision_is_not_called_an_act(screen: Console) -> None:
    rows = [
        decision(),
        decision(acting=False, model_version="logistic/1", model_role="challenger"),
        decision(instance_id="i-2", shadow=True),
    ]
    screen.print(decisions_table("one", pd.DataFrame(rows)))
    text = screen.export_text()
    for said in ("champion, decides", "challenger, shadow", "champion, only logged"):
        assert said in text
    assert "acts" not in text
    screen.print(decisions_table("one", pd.DataFrame([decision()]), watched=True))
    assert "champion, only logged" in screen.export_text()


def test_a_store_says_what_was_added_beside_what_it_holds(
    screen: Console, settings: Settings, engine: sa.Engine, redis: object, mlflow_database: str
) -> None:
    archive = Path(settings.archive_location)
    before = holdings(settings, engine)
    assert before.archive == {}
    with engine.begin() as connection:
        connection.execute(sa.text("insert into users (email) values ('ada@example.com')"))
    (archive / "scrapes").mkdir(parents=True)
    (archive / "scrapes" / "one.parquet").write_bytes(b"1234")
    now = holdings(settings, engine)
    print_stores(screen, settings, before, now)
    lines = {line.split()[0]: line for line in screen.export_text().splitlines() if line.startswith("  ")}
    assert "1 (+1) users" in lines["Postgres"]
    assert "1 (+1) Parquet files" in lines["Archive"]
    assert set(lines) == {"Postgres", "Redis", "Archive", "MLflow"}
    print_stores(screen, settings, now, now)
    assert "1 users" in screen.export_text()


def test_an_archive_on_s3_is_counted(
    settings: Settings, engine: sa.Engine, redis: object, mlflow_database: str, local_aws: LocalAws
) -> None:
    import boto3

    from spotlab_pipelines.market.archive import Archive

    boto3.client("s3").create_bucket(Bucket="counted")
    s3_archive = "s3://counted/spotlab"
    Archive(s3_archive).write_scrape(
        kind="spot_advisor", region=None, fetched_at=datetime.now(UTC), scrape_id=1, frame=pd.DataFrame({"n": [1]})
    )
    found: Holdings = holdings(settings.model_copy(update={"archive_url": s3_archive}), engine)
    assert found.archive == {"scrapes": 1}
    assert found.archive_bytes > 0


def test_the_hints_name_only_what_works_then(screen: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPOTLAB_DATA_DIR", raising=False)
    how_to_look_further(screen, None)
    text = screen.export_text()
    assert "doctor" not in text, "it would look for AWS credentials, which only the demo had"
    assert "make down" in text
    monkeypatch.setenv("SPOTLAB_DATA_DIR", "/elsewhere")
    how_to_look_further(screen, tmp_path)
    text = screen.export_text()
    assert f"make dev MARKET={tmp_path}" in text
    assert "SPOTLAB_DATA_DIR=/elsewhere .venv/bin/spotlab experiments list" in text
