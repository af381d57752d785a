"""Fetching one public document over HTTP or from S3: with jittered retries, and not again if it has not changed.

What the document says is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

from spotlab_pipelines.errors import SettingsError, SourceUnavailable

ATTEMPTS = 4
RETRIED_STATUSES = (429, 500, 502, 503, 504)
BACKOFF_S, JITTER_S, BACKOFF_MAX_S = 0.2, 0.3, 10
RETRY_AFTER_MAX_S = 30
"""A server that asks for a longer pause is asked again after this one: the next scrape comes by itself anyway."""
NOT_MODIFIED = 304


@dataclass(frozen=True)
class Validators:
    """What a server said of a document, by which it can tell whether that is still the current one (RFC 9110, 8.8)."""

    url: str
    etag: str | None = None
    last_modified: str | None = None

    def headers(self, url: str) -> dict[str, str]:
        """The headers of a conditional request; none if the document came from elsewhere."""
        if url != self.url:
            return {}
        asked = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in asked.items() if value}


@dataclass(frozen=True)
class Fetched:
    """A document. `body` is None if it is the one that the given validators are of."""

    body: bytes | None
    validators: Validators


def fetch_document(url: str, timeout_s: float, known: Validators | None = None) -> Fetched:
    """Read an http(s):// or s3:// URL whole, with a few jittered retries.

    Retry-After is honoured, up to RETRY_AFTER_MAX_S. S3 URLs are always read.

    Args:
        timeout_s: of connecting, and of each wait for more of the answer.
        known: validators of the document that one has.

    Raises:
        SettingsError: another kind of URL.
        SourceUnavailable: it does not answer, not with success, or the answer breaks off.
    """
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        return _fetch_http(url, timeout_s, known or Validators(url))
    if scheme == "s3":
        return Fetched(_fetch_s3(url), Validators(url))
    raise SettingsError(
        f"The Spot Advisor's URL begins with http://, https:// or s3://, got {url!r}.",
        remedy="Correct SPOTLAB_ADVISOR_URL.",
    )


def _fetch_http(url: str, timeout_s: float, known: Validators) -> Fetched:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    headers = known.headers(url)
    retry = Retry(
        total=ATTEMPTS - 1,
        backoff_factor=BACKOFF_S,
        backoff_jitter=JITTER_S,
        backoff_max=BACKOFF_MAX_S,
        retry_after_max=RETRY_AFTER_MAX_S,
        status_forcelist=RETRIED_STATUSES,
        raise_on_status=False,
    )
    with requests.Session() as session:
        session.mount(f"{url.partition('://')[0]}://", HTTPAdapter(max_retries=retry))
        try:
            response = session.get(url, timeout=timeout_s, headers=headers)
            response.raise_for_status()
        except requests.RequestException as error:
            raise _unavailable(url, error) from error
    etag, last_modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    if headers and response.status_code == NOT_MODIFIED:
        return Fetched(None, Validators(url, etag or known.etag, last_modified or known.last_modified))
    return Fetched(response.content, Validators(url, etag, last_modified))


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
