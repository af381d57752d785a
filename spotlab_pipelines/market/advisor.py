"""The Spot Advisor's scrape: from its URL to the archive and to Redis. Its shape is parse.py's business."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from spotlab_pipelines.accounts.registry import list_accounts
from spotlab_pipelines.errors import SettingsError, SourceUnavailable
from spotlab_pipelines.market.archive import Archive
from spotlab_pipelines.market.cache import risk_key
from spotlab_pipelines.market.parse_advisor import parse_advisor
from spotlab_pipelines.market.publish import Envelope, publish_advisor, withdraw
from spotlab_pipelines.market.scrapes import ScrapeReport, recorded

if TYPE_CHECKING:
    import redis as redis_client

    from spotlab_pipelines.settings import Settings

__all__ = ["fetch_document", "parse_advisor", "scrape_advisor"]

SOURCE = "spot_advisor"
ATTEMPTS = 4
RETRIED_STATUSES = (429, 500, 502, 503, 504)


def scrape_advisor(settings: Settings, engine: sa.Engine, redis: redis_client.Redis, archive: Archive) -> ScrapeReport:
    """Fetch the feed, validate all of it, archive it, and replace it in Redis.

    Regions of active accounts that the feed does not list get an empty list, so that their types count as unknown to
    the Advisor rather than as never scraped.

    Raises:
        SourceUnavailable: the URL does not answer.
        SourceMalformed: it answers with something else; what is in Redis and the archive stays.
        StoreUnavailable: Redis or the archive does not answer.
    """
    with recorded(engine, SOURCE) as record:
        frame = parse_advisor(fetch_document(settings.advisor_url, settings.http_timeout_s))
        record.keep(archive, frame)
        record.undo_with(partial(withdraw, redis, record.id, risk_key("*")))
        keys = publish_advisor(
            redis,
            frame,
            Envelope(SOURCE, str(record.id), record.fetched_at),
            ttl_s=settings.spot_risk_ttl_s,
            regions=sorted({region for account in list_accounts(engine) for region in account.regions}),
        )
    return record.report(
        frame,
        regions=int(frame["region"].nunique()),
        instance_types=int(frame["instance_type"].nunique()),
        redis_keys=keys,
        rows_by_bucket={str(bucket): int(count) for bucket, count in frame["bucket"].value_counts().items()},
    )


def fetch_document(url: str, timeout_s: float) -> bytes:
    """Read an http(s):// or s3:// URL whole, with a few jittered retries.

    Raises:
        SettingsError: another kind of URL.
        SourceUnavailable: it does not answer, or not with success.
    """
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        return _fetch_http(url, timeout_s)
    if scheme == "s3":
        return _fetch_s3(url)
    raise SettingsError(
        f"The Spot Advisor's URL begins with http://, https:// or s3://, got {url!r}.",
        remedy="Correct SPOTLAB_ADVISOR_URL.",
    )


def _fetch_http(url: str, timeout_s: float) -> bytes:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=ATTEMPTS - 1,
        backoff_factor=0.2,
        backoff_jitter=0.3,
        backoff_max=10,
        status_forcelist=RETRIED_STATUSES,
        raise_on_status=False,
    )
    with requests.Session() as session:
        session.mount(f"{url.partition('://')[0]}://", HTTPAdapter(max_retries=retry))
        try:
            response = session.get(url, timeout=timeout_s)
            response.raise_for_status()
        except requests.RequestException as error:
            raise _unavailable(url, error) from error
        return response.content


def _fetch_s3(url: str) -> bytes:
    import pyarrow.fs as pafs

    try:
        filesystem, path = pafs.FileSystem.from_uri(url)
        with filesystem.open_input_stream(path) as stream:
            return stream.read()
    except (OSError, ValueError) as error:
        raise _unavailable(url, error) from error


def _unavailable(url: str, error: Exception) -> SourceUnavailable:
    return SourceUnavailable(
        f"The Spot Advisor at {url} could not be read: {error}.",
        remedy="Check SPOTLAB_ADVISOR_URL and the network; what was scraped before stays until it expires.",
    )
