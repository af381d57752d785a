"""The command line: quick to answer, one line for an error, exit codes and JSON that a script can rely on."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import typer
from pydantic import SecretStr

from spotlab_pipelines import errors
from spotlab_pipelines.cli import app
from spotlab_pipelines.cli.shared import PRINCIPAL_PLACEHOLDER
from spotlab_pipelines.defs.run import RunOutcome
from spotlab_pipelines.local import status
from spotlab_pipelines.settings import Settings
from spotlab_pipelines.terminal import complain
from spotlab_pipelines_tests.cli.conftest import Spotlab
from spotlab_pipelines_tests.conftest import environment_of, new_directory
from spotlab_pipelines_tests.database.filled import ACCOUNT_ID, fill
from spotlab_pipelines_tests.write_docs import helps

PROGRAM = str(Path(sys.executable).parent / "spotlab")
HEAVY = {"pandas", "numpy", "sqlalchemy", "pydantic", "dagster", "mlflow", "sklearn", "boto3", "redis", "alembic"}
ADD: tuple[str, ...] = (
    "accounts", "add", "--account-id", "444455556666", "--name", "two", "--owner", "bea@example.org",
    "--role-arn", "arn:aws:iam::444455556666:role/spotlab", "--region", "us-east-1", "--region", "eu-west-1",
)  # fmt: skip


def seconds(*command: str) -> float:
    """The best of five of the processor's time: what the command takes, whatever else runs beside it."""
    taken = [_children_s()]
    for _ in range(5):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(_children_s())
    return float(np.diff(taken).min())


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_quick() -> None:
    bare, helped = seconds(sys.executable, "-c", "pass"), seconds(PROGRAM, "--help")
    print(f"spotlab --help {helped:.3f} s, python -c pass {bare:.3f} s, ratio {helped / bare:.1f}")
    assert helped / bare < 15
    assert helped < 0.5


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, spotlab_pipelines.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert HEAVY & set(loaded) == set()


def test_every_command_has_help_and_the_exit_codes_are_told(spotlab: Spotlab) -> None:
    for name, text in helps(typer.main.get_command(app), "spotlab"):
        answer = spotlab(*name.split()[1:], "--help")
        assert answer.code == 0, name
        assert len(text.splitlines()) > 3, name
    told = " ".join(spotlab("--help").out.split())
    for code in ("0 done", "1 permanent", "2 wrong usage", "3 transient", "4 the doctor"):
        assert code in told


@pytest.mark.parametrize(
    "arguments",
    [
        *(("evaluat",), ("evaluate",), ("accounts", "add"), ("experiments", "list", "--x")),
        *(("evaluate", ACCOUNT_ID, *of_the_past) for of_the_past in (("--every", "6h"), ("--count", "1"))),
        ("models", "compare", "logistic/1", "logistic/1"),
    ],
)
def test_wrong_usage_is_2(spotlab: Spotlab, arguments: tuple[str, ...]) -> None:
    assert spotlab(*arguments).code == 2


def one_line(text: str) -> bool:
    return text.startswith("spotlab: ") and len(text.splitlines()) == 1


def test_a_wrong_setting_is_one_line_and_1(spotlab: Spotlab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOTLAB_MINIMUM_GAIN", "plenty")
    answer = spotlab("experiments", "list")
    assert answer.code == 1
    assert one_line(answer.err)
    assert "SPOTLAB_MINIMUM_GAIN" in answer.err
    with pytest.raises(errors.SettingsError):
        spotlab("--traceback", "experiments", "list")


@pytest.mark.parametrize(
    "command", [("accounts", "list"), ("experiments", "list"), ("models", "list"), ("evaluate", ACCOUNT_ID)]
)
def test_a_store_that_does_not_answer_is_3(
    spotlab: Spotlab, settings: Settings, use: Callable[[Settings], None], command: tuple[str, ...]
) -> None:
    url = SecretStr("postgresql://me:hidden-word@127.0.0.1:1/spotlab")
    use(settings.model_copy(update={"database_url": url}))
    answer = spotlab(*command)
    assert answer.code == 3
    assert one_line(answer.err)
    assert "hidden-word" not in answer.err


def test_a_database_that_is_missing_or_empty_says_to_run_up(spotlab: Spotlab, settings: Settings) -> None:
    answer = spotlab("accounts", "list")
    assert (answer.code, one_line(answer.err)) == (1, True)
    assert "spotlab up" in answer.err


def test_an_empty_database_says_to_run_up(spotlab: Spotlab, empty_database: Settings) -> None:
    answer = spotlab("accounts", "list")
    assert (answer.code, one_line(answer.err)) == (1, True)
    assert "revision none" in answer.err


def test_up_prepares_and_can_be_repeated(spotlab: Spotlab, empty_database: Settings) -> None:
    first = spotlab("up")
    assert first.code == 0, first.err
    assert f"{empty_database.dagster_database}, {empty_database.mlflow_database} created" in first.out
    assert "postgres: configured at 127.0.0.1" in first.out
    again = spotlab("up")
    assert (again.code, "databases: there" in again.out) == (0, True)
    assert "password" not in first.out
    assert spotlab("accounts", "list", "--json").json == []


def test_the_program_starts_and_stops_embedded_stores() -> None:
    directory = new_directory()
    settings = Settings(data_dir=directory / "data")
    environment = environment_of(settings)

    def program(*arguments: str) -> str:
        return subprocess.run(
            [PROGRAM, *arguments], env=environment, check=True, capture_output=True, text=True, timeout=120
        ).stdout

    try:
        assert "postgres: started" in program("up")
        assert "postgres: running" in program("up")
        assert [store.state for store in status(settings)] == ["running", "running"]
    finally:
        stopped = program("down")
    assert stopped == "stopped: postgres, redis\n"
    assert program("down") == "No embedded store was running.\n"
    shutil.rmtree(directory)


def test_an_account_is_added_and_shown_without_its_secret(spotlab: Spotlab, engine: sa.Engine) -> None:
    added = spotlab(*ADD, "--environment", "PROD", "--interruption-cost-usd", "2.5", "--interval-s", "600", "--json")
    assert added.code == 0, added.err
    secret = added.json["external_id"]
    condition = added.json["trust_policy"]["Statement"][0]["Condition"]
    assert condition == {"StringEquals": {"sts:ExternalId": secret}}
    for listing in (spotlab("accounts", "list"), spotlab("accounts", "list", "--json")):
        assert listing.code == 0
        assert secret not in listing.out + listing.err
        assert "external" not in listing.out
    (account,) = spotlab("accounts", "list", "--json").json
    assert set(account["regions"]) == {"us-east-1", "eu-west-1"}
    assert (account["environment"], account["interruption_cost_usd"]) == ("PROD", 2.5)
    assert (account["owner_email"], account["evaluation_interval_s"]) == ("bea@example.org", 600)


def test_the_owner_is_shown_what_to_paste(spotlab: Spotlab, engine: sa.Engine) -> None:
    answer = spotlab(*ADD)
    assert "External id: " in answer.out
    assert "sts:AssumeRole" in answer.out
    assert "principal" in answer.err, "without credentials, the owner has to fill it in"


def test_the_external_id_is_shown_whatever_aws_says_of_ourselves(
    spotlab: Spotlab, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-nobody-wrote")
    answer = spotlab(*ADD)
    assert answer.code == 0, answer.err
    with engine.connect() as connection:
        secret = connection.scalar(sa.text("select external_id from accounts"))
    assert answer.out.count(secret) == 2, "once for the owner to read, once in the policy"
    assert PRINCIPAL_PLACEHOLDER in answer.out
    assert "principal" in answer.err
    assert secret not in answer.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--account-id", "12345"),
        ("--role-arn", "arn:aws:iam::999999999999:role/other"),
        ("--role-arn", "nonsense"),
        ("--environment", "TEST"),
        ("--owner", "nobody"),
        ("--region", "mars-north-1"),
    ],
)
def test_a_bad_account_is_refused_and_leaves_nothing(
    spotlab: Spotlab, engine: sa.Engine, option: str, value: str
) -> None:
    arguments = list(ADD)
    if option in arguments:
        arguments[arguments.index(option) + 1] = value
    else:
        arguments += [option, value]
    answer = spotlab(*arguments)
    assert answer.code == 1
    assert one_line(answer.err), answer.err
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select (select count(*) from users) + (select count(*) from accounts)")) == 0


def test_a_second_registration_changes_nothing(spotlab: Spotlab, engine: sa.Engine) -> None:
    assert spotlab(*ADD).code == 0
    before = spotlab("accounts", "list", "--json").json
    assert spotlab(*ADD, "--environment", "PROD").code == 1
    assert spotlab("accounts", "list", "--json").json == before


def test_lists_of_what_is_there(spotlab: Spotlab, engine: sa.Engine, owner: sa.Engine) -> None:
    assert "nothing" in spotlab("experiments", "list").out.lower()
    assert "bootstrap" in spotlab("models", "list").out
    fill(owner)
    (evaluation,) = spotlab("experiments", "list", "--json").json
    assert (evaluation["account_id"], evaluation["state"], evaluation["step"]) == (ACCOUNT_ID, "running", 1)
    assert spotlab("experiments", "list", "--account", "000000000000", "--json").json == []
    version, *_ = spotlab("models", "list", "--json").json
    assert (version["version"], version["role"]) == ("logistic/1", "champion")
    told = spotlab("experiments", "list", "--account", "000000000000").out
    assert "of 000000000000" in told, "others may have evaluations"
    (window,) = re.findall(r"2\S+Z", spotlab("experiments", "list").out)
    assert spotlab("experiments", "show", ACCOUNT_ID, "--window", window).code == 0, "as it was copied"
    for what in ("experiments", "models", "accounts"):
        table = spotlab(what, "list")
        assert table.code == 0
        assert "running" in table.out or "logistic/1" in table.out or ACCOUNT_ID in table.out


def test_an_unknown_account_is_not_evaluated(spotlab: Spotlab, engine: sa.Engine) -> None:
    answer = spotlab("evaluate", "999999999999")
    assert (answer.code, one_line(answer.err)) == (1, True)
    assert "999999999999" in answer.err


@pytest.mark.parametrize(
    ("message", "kind", "code"),
    [
        ("MarketDataStale: too old", errors.MarketDataStale, 3),
        ("Throttled: slowly", errors.Throttled, 3),
        ("AccessDenied: no", errors.AccessDenied, 1),
        ("ZeroDivisionError: division by zero", errors.PermanentError, 1),
        ("annotations: not a class of the tree", errors.PermanentError, 1),
        (None, errors.PermanentError, 1),
    ],
)
def test_a_failed_run_tells_whether_to_try_again(
    message: str | None, kind: type[errors.SpotLabError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = RunOutcome("a", datetime.now(UTC), success=False, failed_step="spot_prices", error=message)
    failure = outcome.failure()
    assert type(failure) is kind
    assert complain(failure) == code
    assert capsys.readouterr().err == f"spotlab: spot_prices failed: {message or 'no reason was recorded'}\n"


def test_mlruns_that_cannot_be_written_is_one_line_and_1(
    spotlab: Spotlab,
    settings: Settings,
    use: Callable[[Settings], None],
    engine: sa.Engine,
    mlflow_database: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "a-file").write_text("")
    use(settings.model_copy(update={"mlruns_dir": tmp_path / "a-file" / "mlruns"}))
    answer = spotlab("models", "bootstrap", "--no-scrape")
    assert (answer.code, one_line(answer.err.splitlines()[-1])) == (1, True), answer.err
    assert "a-file" in answer.err
    assert "SPOTLAB_MLRUNS_DIR" in answer.err
