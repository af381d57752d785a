"""The Spot Advisor's scrape: from its URL to the archive and to Redis, and what becomes of the last good one.

The feed's shape is parse_advisor.py's business, the way there fetch.py's. A feed that has not changed is confirmed:
published anew under the confirming scrape, but archived once. A feed that is broken, truncated or out of reach leaves
the last good one readable for the rest of its time to live, flagged with the reason; after that it stays in Redis only
so that a reader is told what there was and why there is nothing newer.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import pandas as pd
import sqlalchemy as sa

from spotlab_pipelines.accounts.registry import list_accounts
from spotlab_pipelines.database.audit import command_line_user
from spotlab_pipelines.database.engine import database_errors
from spotlab_pipelines.database.tables import Scrape
from spotlab_pipelines.errors import (
    ArchiveTooNew,
    IntegrityError,
    NotFound,
    SettingsError,
    SourceMalformed,
    SourceUnavailable,
    StoreUnavailable,
)
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import risk_key
from spotlab_pipelines.market.canonical import content_id
from spotlab_pipelines.market.fetch import Validators, fetch_document
from spotlab_pipelines.market.frames import ADVISOR_COLUMNS, check_advisor
from spotlab_pipelines.market.history import MarketHistory
from spotlab_pipelines.market.parse_advisor import parse_advisor, refuse_loss
from spotlab_pipelines.market.publish import Envelope, publish_advisor, withdraw
from spotlab_pipelines.market.records import Document
from spotlab_pipelines.market.scrapes import ScrapeReport, recorded

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.settings import Settings

SOURCE = "spot_advisor"
FLAGGED_FOR_S = 7 * 86400
"""How long the last good values stay in Redis after a scrape that failed; each failure renews it."""
REASON_LENGTH = 300


def scrape_advisor(
    settings: Settings,
    engine: sa.Engine,
    redis: redis_client.Redis,
    archive: Archive,
    *,
    accept_loss: bool = False,
) -> ScrapeReport:
    """Fetch the feed if it has changed, validate all of it, archive it, and replace it in Redis.

    Regions of active accounts that the feed does not list get an empty list, so that their types count as unknown to
    the Advisor rather than as never scraped.

    Args:
        accept_loss: take a feed that lists much less than the last good one for the truth; the scrape's row says who
            did so.

    Raises:
        SourceUnavailable: the URL does not answer.
        SourceMalformed: it answers with something else, or with much less than before; the archive stays as it is,
            and the values in Redis are flagged as the last good ones.
        StoreUnavailable: Redis or the archive does not answer.
    """
    with recorded(engine, SOURCE) as record:
        last = last_good(archive)
        known = _validators(engine, last.scrape_id) if last else None
        try:
            fetched = fetch_document(settings.advisor_url, settings.http_timeout_s, known)
            frame = last.frame if last and fetched.body is None else parse_advisor(fetched.body or b"")
            if last and not accept_loss:
                refuse_loss(
                    frame, last.frame, max_share=settings.advisor_max_loss_share, since=last.fetched_at.isoformat()
                )
        except (SourceUnavailable, SourceMalformed, SettingsError) as error:
            _flag_last_good(settings, engine, redis, archive, error)
            raise
        record.provenance |= {name: value for name, value in vars(fetched.validators).items() if value}
        if accept_loss:
            record.provenance["loss_accepted_by"] = command_line_user()
        since = record.fetched_at
        note = ""
        if last and (fetched.body is None or _same(frame, last.frame)):
            since, note = last.content_at, f"confirmed unchanged since {last.content_at.isoformat()}"
            record.confirm(archive, last, note)
        else:
            record.keep(archive, frame)
        record.undo_with(partial(withdraw, redis, record.id, risk_key("*")))
        keys = publish_advisor(
            redis,
            frame,
            Envelope(SOURCE, str(record.id), record.fetched_at, note=note),
            ttl_s=settings.spot_risk_ttl_s,
            regions=_regions(engine),
        )
    return record.report(
        frame,
        regions=int(frame["region"].nunique()),
        instance_types=int(frame["instance_type"].nunique()),
        redis_keys=keys,
        rows_by_bucket={str(bucket): int(count) for bucket, count in frame["bucket"].value_counts().items()},
        unchanged_since=since.isoformat(),
        feed_modified=fetched.validators.last_modified,
    )


def last_good(archive: Archive) -> Document | None:
    """What the newest scrape that ended well found; None if there is none, or the archive has lost it.

    Raises:
        ArchiveTooNew: a newer SpotLab wrote it.
    """
    try:
        document = MarketHistory(archive).document(SOURCE)
        return replace(document, frame=check_advisor(document.frame[list(ADVISOR_COLUMNS)]))
    except ArchiveTooNew:
        raise
    except (NotFound, KeyError, SourceMalformed, IntegrityError):
        # Never scraped, deleted, damaged, or written by another version of this code: a whole feed takes its place.
        return None


def _validators(engine: sa.Engine, scrape_id: str) -> Validators | None:
    """What the server said of the document that a scrape found."""
    said = sa.select(Scrape.provenance).where(Scrape.id == UUID(scrape_id))
    with database_errors(), engine.connect() as connection:
        provenance = connection.execute(said).scalar_one_or_none() or {}
    url = provenance.get("url")
    return Validators(url, provenance.get("etag"), provenance.get("last_modified")) if url else None


def _same(frame: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two feeds say the same in whatever order: a server without validators may send the same again."""
    return len(frame) == len(other) and content_id({SOURCE: frame}, {}) == content_id({SOURCE: other}, {})


def _flag_last_good(
    settings: Settings, engine: sa.Engine, redis: redis_client.Redis, archive: Archive, error: Exception
) -> None:
    """Publish the last good feed, as old as it is, with the reason why there is no newer one."""
    try:
        # Looked up anew: another scrape may have succeeded while this one was retrying.
        last = last_good(archive)
        if last is None:
            return
        reason = f"{type(error).__name__}: {error}"
        left_s = settings.spot_risk_ttl_s - (datetime.now(UTC) - last.fetched_at).total_seconds()
        publish_advisor(
            redis,
            last.frame,
            Envelope(
                SOURCE,
                last.scrape_id,
                last.fetched_at,
                stale=True,
                note=reason if len(reason) <= REASON_LENGTH else f"{reason[:REASON_LENGTH]}…",
            ),
            ttl_s=int(max(left_s, 0)) + FLAGGED_FOR_S,
            regions=_regions(engine),
        )
    except StoreUnavailable as left:
        error.add_note(f"The last good values could not be flagged as such: {left}")


def _regions(engine: sa.Engine) -> list[str]:
    return sorted({region for account in list_accounts(engine) for region in account.regions})
