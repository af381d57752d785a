"""`spotlab models show`: all that is known of one version."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from spotlab_pipelines.cli.models import Version
from spotlab_pipelines.cli.scorecards import finite, full_scorecard
from spotlab_pipelines.cli.shared import Json, database, read_settings
from spotlab_pipelines.cli.training import fit_rows
from spotlab_pipelines.terminal import print_json, print_rows, visible

if TYPE_CHECKING:
    from spotlab_pipelines.experiments.version_report import VersionReport

OF_THE_DATA = ("source", "since", "until", "examples", "first_example", "last_example", "data_fingerprint")
LISTED = ("at", "action", "actor", "outcome", "reason")


def models_show(version: Version, as_json: Json = False) -> None:
    """Show all that is known of a version: status and who gave it, files, fit, scorecard, verdict, pages in MLflow.

    The figures of the fit are of examples that it had not seen; what it was worth in service, its scorecard says.
    """
    from spotlab_pipelines.experiments.version_report import version_report

    settings = read_settings()
    with database(settings) as engine:
        report = version_report(settings, engine, version, now=datetime.now(UTC))
    if as_json:
        print_json(_json(report))
        return
    for name, value in _facts(report, settings.scorecard_days):
        print(f"{name:<16}{visible(value)}")
    print("On record:")
    acts = [{name: act[name] for name in LISTED} for act in report.acts]
    print_rows(acts, as_json=False, empty="Nothing: nobody who may has registered it.")
    print("The fit, judged by examples that it had not seen:")
    print_rows(fit_rows(report.row.metrics), as_json=False, empty="No figures are known.")
    _print_params(report)
    if report.lost is not None:
        typer.echo(f"note: what MLflow shows is not known: {visible(report.lost)}", err=True)


def _facts(report: VersionReport, days: int) -> Iterator[tuple[str, str]]:
    """What there is one of, by name, in the order of reading."""
    from spotlab_pipelines.experiments.judging import HORIZON_H
    from spotlab_pipelines.experiments.page_text import scorecard_text, verdict_text

    row, params = report.row, report.params
    yield "version", row.version
    yield "status", row.status if row.role == "none" else f"{row.status}, {row.role}"
    yield "registered by", row.registered_by
    yield "feature spec", f"{row.feature_spec}, at {', '.join(map(str, row.horizons_h))} h"
    yield "sha256", row.artifact_sha256
    told = "they are the registered ones" if report.intact else "NOT the registered ones; they are not opened"
    yield "files", f"{row.artifact_uri}; {told}"
    if report.problem is not None:
        yield "problem", report.problem
    yield "learned from", report.learned_from or "not known"
    if {"examples", "first_example", "last_example"} <= params.keys():
        bounds = [f"{name} {params[name]}" for name in ("since", "until") if params.get(name, "None") != "None"]
        asked = f"; asked for {' '.join(bounds)}" if bounds else ""
        yield "examples", f"{params['examples']}, {params['first_example']} to {params['last_example']}{asked}"
    yield "fingerprint", row.training_sha256 or "none"
    card = report.scorecard
    nothing = f"no prediction in the last {days} days"
    yield "scorecard", nothing if card is None else f"at {HORIZON_H} h: {scorecard_text(card)}"
    if row.role == "champion":
        yield "verdict", "none, as it is the champion"
    else:
        verdict, past = report.verdict, card.retrospective if card else 0
        none = "none on record yet" + (": predictions of past windows do not count" if past else "")
        yield "verdict", none if verdict is None else f"of {verdict.day}, {verdict_text(verdict, past=past)}"
    for name, address in report.pages.items():
        yield f"MLflow {name}", address


def _print_params(report: VersionReport) -> None:
    """What was chosen at each horizon, and the other parameters that are not told above."""
    from spotlab_pipelines.inference.card import by_horizon

    params = {name: value for name, value in report.params.items() if name not in OF_THE_DATA}
    table, others = by_horizon(params, report.row.horizons_h)
    reads = table.pop("features", {})
    columns = [f"{hours}h" for hours in report.row.horizons_h]
    if table:
        print("Chosen at each horizon:")
        rows = [{"parameter": name} | {column: row.get(column) for column in columns} for name, row in table.items()]
        print_rows(rows, as_json=False, empty="")
    for names in dict.fromkeys(reads.values()):
        print(f"It reads at {', '.join(column for column, each in reads.items() if each == names)}: {visible(names)}")
    for name, value in others.items():
        print(f"{visible(name)} = {visible(value)}")


def _json(report: VersionReport) -> dict[str, Any]:
    card, verdict = report.scorecard, report.verdict
    told = {
        "scorecard": None if card is None else full_scorecard(card),
        "verdict": None if verdict is None else {name: finite(value) for name, value in vars(verdict).items()},
    }
    return vars(report.row) | {name: value for name, value in vars(report).items() if name != "row"} | told
