"""docs/schema.sql: the schema as the migrations make it, in pg_dump's words. `make docs` writes it.

It is always made by the wheels' Postgres, so that the text does not depend on the machine's version. The log's monthly
partitions are left out: which ones exist depends on the day.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy import make_url

from spotlab_pipelines.database.engine import connect, database_url, disconnect
from spotlab_pipelines.database.migrate import ensure_databases, upgrade
from spotlab_pipelines.local import down, up
from spotlab_pipelines.local.binaries import postgres_programs
from spotlab_pipelines.settings import PROJECT_ROOT, Settings

PAGE = PROJECT_ROOT / "docs" / "schema.sql"
HEADING = "-- The schema of the domain database. `make docs` writes this file from the migrations; do not edit it.\n\n"
# Comments, pg_dump's own session settings, and a key that it draws anew each time.
NOISE = re.compile(r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict.*)\n", re.MULTILINE)


def schema_sql() -> str:
    """The text of docs/schema.sql."""
    with tempfile.TemporaryDirectory(prefix="spotlab-schema-") as folder:
        Path(folder).chmod(0o711)
        settings = Settings(data_dir=Path(folder) / "data", local_binaries="wheels")
        try:
            up(settings, postgres_options=("fsync=off",))
            ensure_databases(settings)
            upgrade(settings)
            text = _dump(settings)
            disconnect(connect(settings))
        finally:
            down(settings)
    return HEADING + re.sub(r"\n{3,}", "\n\n", NOISE.sub("", text)).strip() + "\n"


def _dump(settings: Settings) -> str:
    url = make_url(database_url(settings))
    program = next(postgres_programs(settings)).directory / "pg_dump"
    # By the environment: a password on a command line can be read by every user of the machine.
    access = {"PGHOST": url.host, "PGPORT": str(url.port), "PGUSER": url.username, "PGPASSWORD": url.password}
    command = [program, "--schema-only", "--no-owner", "--exclude-table=experiment_logs_2*", url.database or ""]
    environment = {**os.environ, **{name: value for name, value in access.items() if value}}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
