"""The Spot Advisor's feed by hand, and a server that publishes it as told; for tests of several rooms."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from spotlab_pipelines.market.parse_advisor import RANGE_LABELS


def whole_feed(spot_advisor: Any) -> dict[str, Any]:
    """A feed as AWS publishes it, with these regions."""
    tops = (5, 11, 16, 22, 100)
    return {
        "global_rate": "<10%",
        "ranges": [
            {"index": index, "label": label, "dots": index, "max": tops[index]}
            for index, label in enumerate(RANGE_LABELS)
        ],
        "instance_types": {"m5.large": {"cores": 2, "ram_gb": 8.0, "emr": True}},
        "spot_advisor": spot_advisor,
    }


@dataclass
class FeedServer:
    """What the server answers from now on, and the headers it was asked with.

    Attributes:
        body, status, headers: the answer. With an ETag or Last-Modified among the headers, a request that names it is
            answered 304.
        cut: bytes of the body that are announced but not sent.
        first: statuses and headers that the next requests get instead, one after the other.
    """

    url: str = ""
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    first: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)

    def publish(self, spot_advisor: Any, **headers: str) -> None:
        """Answer with this feed."""
        self.body, self.status, self.cut = orjson.dumps(whole_feed(spot_advisor)), 200, 0
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(self, asked: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(asked)
        if self.first:
            return *self.first.pop(0), b""
        known = [asked.get("If-None-Match"), asked.get("If-Modified-Since")]
        ours = [self.headers.get("ETag"), self.headers.get("Last-Modified")]
        if any(known) and known == ours:
            return 304, self.headers, b""
        return self.status, self.headers, self.body


@contextmanager
def feed_server() -> Iterator[FeedServer]:
    """A server on a free port, answering until the block ends."""
    feed = FeedServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = feed.answer(dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - feed.cut])

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        feed.url = f"http://127.0.0.1:{server.server_address[1]}/spot-advisor-data.json"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield feed
        finally:
            server.shutdown()
            thread.join()
