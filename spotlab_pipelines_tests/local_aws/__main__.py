"""`python -m spotlab_pipelines_tests.local_aws --market DIR [--port N]`: serve a market recording until stopped."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType


def main(arguments: list[str] | None = None) -> int:
    """Serve; 0 when stopped by a signal, 2 if it cannot start, with one line that says why."""
    parser = argparse.ArgumentParser(prog="python -m spotlab_pipelines_tests.local_aws", description=__doc__)
    parser.add_argument("--market", required=True, metavar="DIR", help="folder of a market recording")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; default: any free one")
    options = parser.parse_args(arguments)

    from spotlab_pipelines_tests.local_aws.client import LocalAwsError
    from spotlab_pipelines_tests.local_aws.recording import RecordingError
    from spotlab_pipelines_tests.local_aws.server import LocalAws

    try:
        server = LocalAws(options.market, options.port)
    except (LocalAwsError, RecordingError) as error:
        print(f"local AWS: {error}", file=sys.stderr)
        return 2

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with server:
        print(f"local AWS at {server.endpoint_url} serves {server.app.recording.name}", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
