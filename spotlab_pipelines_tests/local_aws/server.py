"""The local AWS as a server: in this process (`LocalAws`) or in one of its own (`python -m …local_aws`)."""

from __future__ import annotations

import socket
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from spotlab_pipelines_tests.local_aws.app import Application
from spotlab_pipelines_tests.local_aws.client import LocalAwsClient, LocalAwsError
from spotlab_pipelines_tests.local_aws.recording import Recording, load_recording

HOST = "127.0.0.1"


class LocalAws(LocalAwsClient):
    """A local AWS in threads of this process; a context manager, usable by other processes while it is open.

    moto's state belongs to the process: run one at a time.
    """

    def __init__(self, market: Path | str | Recording, port: int = 0) -> None:
        """Load the market and take the port (0: any free one).

        Raises:
            RecordingError: the folder is not a market recording.
            LocalAwsError: the port is taken.
        """
        recording = market if isinstance(market, Recording) else load_recording(market)
        self.app = Application(recording)
        self._socket = _listen(port)
        self._server: BaseWSGIServer = make_server(
            HOST,
            self._socket.getsockname()[1],
            self.app,
            threaded=True,
            request_handler=_handler(),
            fd=self._socket.fileno(),
        )
        self._thread = Thread(target=self._server.serve_forever, name="local-aws", daemon=True)
        super().__init__(f"http://{HOST}:{self._socket.getsockname()[1]}")

    def start(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering and give the port back."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._socket.close()

    def wait(self) -> None:
        """Block while the server runs."""
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.app.reset()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise LocalAwsError(f"Port {port} cannot be taken ({error.strerror}); choose another.") from None
    listener.listen(128)
    return listener


def _handler() -> type[WSGIRequestHandler]:
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class QuietHandler(MotoRequestHandler):
        # Head and body are two writes: without this every reply on a kept connection waits for a delayed ACK.
        disable_nagle_algorithm = True

        def log_request(self, *args: Any, **kwargs: Any) -> None:
            """Say nothing of requests that went well."""

    return QuietHandler
