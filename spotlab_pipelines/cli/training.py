"""`spotlab models train`, `recalibrate` and `backtest`: new candidates, and how versions would have done."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spotlab_pipelines.cli.models import Version
from spotlab_pipelines.cli.shared import As, Json, acting_as, database, read_settings, wrong_usage
from spotlab_pipelines.terminal import print_rows, records

if TYPE_CHECKING:
    import sqlalchemy as sa

    from spotlab_pipelines.settings import Settings
    from spotlab_pipelines.training.data import TrainingData
    from spotlab_pipelines.training.interruption_model import TrainedModel

FIGURES = ("n", "events", "base_rate", "auc", "pr_auc", "log_loss", "brier", "brier_skill", "ece")
COMPARED = ("forecaster", "roc_auc", "pr_auc", "log_loss", "brier", "brier_skill", "ece")
Family = Annotated[
    str, typer.Argument(metavar="FAMILY", help="base-rate, advisor-rate, time-in-state, logistic or boosting.")
]
Source = Annotated[str, typer.Option("--trace", help="An imported trace's name, or `accounts`: their Spot requests.")]
Spec = Annotated[
    str | None,
    typer.Option(
        "--spec",
        help="The feature spec. Default: v1, with prices, for accounts (time-in-state reads none: v2-history); "
        "v2-history for a trace, which has none.",
    ),
]
Day = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], metavar="DATE", help="In UTC."),
]


def models_train(
    family: Family,
    trace: Source = "accounts",
    spec: Spec = None,
    since: Day = None,
    until: Day = None,
    as_user: As = None,
    as_json: Json = False,
) -> None:
    """Fit a family, judge it by blocked validation and by walking forward, and register it as a candidate.

    Nothing from --until on is looked at. A candidate serves nobody: `spotlab models approve` is a step of its own.
    """
    from spotlab_pipelines.market.traces import ACCOUNTS
    from spotlab_pipelines.training.families import check_family, default_spec

    spec = spec or default_spec(family, from_trace=trace != ACCOUNTS)
    with wrong_usage():
        check_family(family, spec, from_trace=trace != ACCOUNTS)
    settings = read_settings()
    _check_source(settings, trace, since, until)
    from spotlab_pipelines.accounts.acting import check_rights
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.training.interruption_model import train_model

    with database(settings) as engine:
        actor = acting_as(engine, as_user)
        # Asked first, as all that follows takes its time.
        check_rights(engine, "register_model", actor=actor, subject=family)
        data = _collected(settings, engine, trace, spec, since, until)
        registry, by = ModelRegistry(engine, settings), "spotlab models train"
        trained = train_model(settings, registry, data, family=family, registered_by=by, actor=actor, progress=_say)
    _print_trained(trained, as_json=as_json)


def models_recalibrate(
    version: Version,
    trace: Source = "accounts",
    since: Day = None,
    until: Day = None,
    as_user: As = None,
    as_json: Json = False,
) -> None:
    """Recalibrate a version on rows that it has not seen, and register the result as a candidate of its family.

    A few days do: the models stay as they are, and each horizon gets one more map that leans on what they say. The
    figures are of maps that did not know the day they are judged on; what lies from --until on is for `models
    backtest`, which refuses what the new version has seen.
    """
    settings = read_settings()
    _check_source(settings, trace, since, until)
    from spotlab_pipelines.accounts.acting import check_rights
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.training.recalibrating import recalibrated_version

    with database(settings) as engine:
        actor, registry = acting_as(engine, as_user), ModelRegistry(engine, settings)
        check_rights(engine, "register_model", actor=actor, subject=version)
        data = _collected(settings, engine, trace, registry.find(version).feature_spec, since, until)
        by = "spotlab models recalibrate"
        made = recalibrated_version(settings, registry, data, version, registered_by=by, actor=actor, progress=_say)
    _print_trained(made, as_json=as_json)


def models_backtest(
    versions: Annotated[list[str], typer.Argument(metavar="VERSION...", help="As `models list` shows them.")],
    trace: Annotated[str, typer.Option("--trace", help="An imported trace's name.")],
    since: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
            metavar="DATE",
            help="In UTC; what a version was fitted on cannot judge it.",
        ),
    ],
    until: Day = None,
    recalibrate_days: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=365.0,
            help="Recalibrate on so many first days, which are not judged: once, and daily from then on.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge versions, whatever their status, on a trace, beside what needs no model, all on the same rows.

    A trace has no prices: the versions' feature specs must need none. over_constant is the Brier skill against the
    forecaster `constant`, which says the same of all pools. MLflow keeps a run of each version in `backtests`.
    """
    settings = read_settings()
    _check_source(settings, trace, since, until)
    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.training.backtest_pages import show_backtest
    from spotlab_pipelines.training.backtesting import backtest_versions

    with database(settings) as engine:
        found = backtest_versions(
            settings,
            ModelRegistry(engine, settings),
            Archive(settings.archive_location),
            versions,
            trace=trace,
            since=since.replace(tzinfo=UTC),
            until=_utc(until),
            recalibrate_days=recalibrate_days,
            progress=_say,
        )
    rows = records(found.judged.replace([float("inf"), float("-inf")], None))
    if as_json:
        print_rows(rows, as_json=True, empty="")
    else:
        _print_backtest(rows, tuple(versions))
    _say(f"in MLflow: {show_backtest(settings, found)}")


def _check_source(settings: Settings, trace: str, since: datetime | None, until: datetime | None) -> None:
    """Refuse bounds out of order and a trace that is not there, before anything slow is imported or read."""
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.market.trace_reading import check_trace
    from spotlab_pipelines.market.traces import ACCOUNTS
    from spotlab_pipelines.training.data import check_bounds

    with wrong_usage():
        check_bounds(_utc(since), _utc(until))
    if trace != ACCOUNTS:
        check_trace(Archive(settings.archive_location), trace)


def _collected(
    settings: Settings, engine: sa.Engine, trace: str, spec: str, since: datetime | None, until: datetime | None
) -> TrainingData:
    """The examples that were asked for, kept in the archive."""
    from spotlab_pipelines.accounts.sessions import AccountSessions
    from spotlab_pipelines.database.redis import connect_redis
    from spotlab_pipelines.market.archive import Archive
    from spotlab_pipelines.training.data import ACCOUNTS, collect_accounts, collect_trace

    archive = Archive(settings.archive_location)
    bounds = {"feature_spec": spec, "since": _utc(since), "until": _utc(until), "progress": _say}
    if trace != ACCOUNTS:
        return collect_trace(settings, archive, trace, **bounds)
    sessions = AccountSessions.of(settings, engine)
    return collect_accounts(settings, engine, sessions, connect_redis(settings), archive, **bounds)


def _print_trained(trained: TrainedModel, *, as_json: bool) -> None:
    from spotlab_pipelines.training.interruption_model import concerns

    if as_json:
        print_rows([vars(trained)], as_json=True, empty="")
        return
    print_rows(fit_rows(trained.metrics), as_json=False, empty="")
    print(f"{trained.version} is a {trained.status}; fit {trained.fit_sha256}, data {trained.data_fingerprint}.")
    for concern in concerns(trained.metrics):
        _say(f"note: {concern}")


def fit_rows(metrics: dict[str, float]) -> list[dict[str, Any]]:
    """How a fit did, a row for each horizon and way of judging of which something is known.

    Before recalibration it is judged on the rows of out of fold.
    """
    from spotlab_pipelines.settings import HORIZONS_H

    found = []
    for horizon in HORIZONS_H:
        for kind, prefix in (("before", "before_"), ("out of fold", ""), ("walking forward", "walk_forward_")):
            figures = {name: metrics.get(f"{prefix}{name}_{horizon}h") for name in FIGURES}
            if any(figure is not None for figure in figures.values()):
                found.append({"within": f"{horizon} h", "judged": kind, **_rounded(figures)})
    return found


def _print_backtest(rows: list[dict[str, Any]], versions: tuple[str, ...]) -> None:
    """A table for each horizon, whose rows are the same for all forecasters; it fits a terminal.

    Args:
        versions: a line sets each but the first apart from it, and each that recalibration makes of one.
    """
    for horizon, group in groupby(rows, key=itemgetter("horizon_h")):
        found = list(group)
        told = [_rounded(row) for row in found]
        n, events, rate = (told[0][name] for name in ("n", "events", "base_rate"))
        print(f"Within {horizon} h: {n} rows, {events} of them interrupted (base rate {rate:.4g})")
        print_rows(
            [{name: row[name] for name in COMPARED} | {"over_constant": row["skill_over_constant"]} for row in told],
            as_json=False,
            empty="",
        )
        others = [row for row in found[1:] if row["forecaster"].startswith(versions)]
        if others:
            print(f"By how much the Brier score is below that of {found[0]['forecaster']}; above 0 is better:")
        for row in others:
            low, high = row["brier_gain_low"], row["brier_gain_high"]
            sure = "too little to say how sure" if low is None else f"95 %: {low:+.5f} to {high:+.5f}"
            print(f"  {row['forecaster']} {row['brier_gain']:+.5f} ({sure})")


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
