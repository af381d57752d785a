"""`spotlab market`: what only a person can decide about a source."""

from __future__ import annotations

import typer

from spotlab_pipelines.cli.shared import EXIT_CODES, Json, database, read_settings
from spotlab_pipelines.terminal import print_rows

app = typer.Typer(no_args_is_help=True, help="The market's sources.", epilog=EXIT_CODES)


@app.command("accept-advisor")
def accept_advisor(as_json: Json = False) -> None:
    """Scrape the Spot Advisor and take it for the truth, even if it lists much less than the last good feed.

    A feed that lost a larger share than SPOTLAB_ADVISOR_MAX_LOSS_SHARE is otherwise refused as truncated. It must be
    valid all the same. The scrape's row says who accepted it.
    """
    from spotlab_pipelines.database.redis import connect_redis
    from spotlab_pipelines.market.advisor import scrape_advisor
    from spotlab_pipelines.market.archive import Archive

    settings = read_settings()
    with database(settings) as engine:
        archive = Archive(settings.archive_location)
        report = scrape_advisor(settings, engine, connect_redis(settings), archive, accept_loss=True)
    shown = {name: report.details[name] for name in ("regions", "instance_types", "unchanged_since")}
    print_rows([{"scrape_id": report.scrape_id, "rows": report.row_count, **shown}], as_json=as_json, empty="")
