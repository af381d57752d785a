"""Asking a running Dagster UI what it shows."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import pytest


class Ui:
    """The GraphQL endpoint of a running `dagster dev`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
            answer = json.load(reply)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def wait(self, query: str, path: str, done: set[str], **variables: Any) -> str:
        """Ask until the status is one of `done`."""
        status, deadline = "UNKNOWN", time.monotonic() + 500
        while time.monotonic() < deadline:
            status = self.ask(query, **variables)[path]["status"]
            if status in done:
                return status
            time.sleep(0.5)
        pytest.fail(f"still {status} after eight minutes")
