"""Stores and a local AWS of a benchmark's own, in a scratch folder; nothing of them is left at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spotlab_pipelines.settings import Settings, get_settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from spotlab_pipelines_tests.local_aws.client import LocalAwsClient


@contextmanager
def laboratory(
    market_of: Callable[[Settings], Path],
) -> Iterator[tuple[Settings, sa.Engine, LocalAwsClient, Path]]:
    """Settings, engine, local AWS (in a process of its own) and market; `market_of` makes the market or finds it."""
    from spotlab_pipelines.database.engine import connect, disconnect
    from spotlab_pipelines.database.migrate import ensure_databases, upgrade
    from spotlab_pipelines.local import down, up
    from spotlab_pipelines_tests.demo.servers import Servers
    from spotlab_pipelines_tests.demo.stage import start_local_aws

    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="spotlab-bench-") as folder:
        Path(folder).chmod(0o711)
        os.environ |= {"SPOTLAB_DATA_DIR": f"{folder}/data", "SPOTLAB_MLRUNS_DIR": f"{folder}/mlruns"}
        get_settings.cache_clear()
        settings = get_settings()
        servers = Servers(settings.data_dir / "logs")
        started = up(settings).started
        try:
            market = market_of(settings)
            aws = start_local_aws(servers, market)
            settings = get_settings()
            ensure_databases(settings)
            upgrade(settings)
            engine = connect(settings)
            yield settings, engine, aws, market
            disconnect(engine)
        finally:
            servers.stop()
            down(settings, only=started)
            os.environ.clear()
            os.environ.update(before)
            get_settings.cache_clear()
