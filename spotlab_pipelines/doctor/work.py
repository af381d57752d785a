"""What the doctor looks at of the work itself: evaluations nothing works on, models that are broken or out of step."""

from __future__ import annotations

from datetime import UTC, datetime

from spotlab_pipelines.doctor.findings import Doubt
from spotlab_pipelines.settings import Settings

SHOWN_MAX = 5


def evaluations(settings: Settings) -> str:
    """Whether whatever is on record as running is being worked on."""
    import sqlalchemy as sa

    from spotlab_pipelines.database.engine import connect, database_errors, database_url, engine_for
    from spotlab_pipelines.database.evaluations import running_evaluations
    from spotlab_pipelines.defs.run import open_instance
    from spotlab_pipelines.defs.stuck import dead_runs, stuck_evaluations

    database = connect(settings)
    running = running_evaluations(database)
    with database_errors(), engine_for(database_url(settings, "dagster"), pool_size=1).connect() as connection:
        if not sa.inspect(connection).has_table("runs"):
            # Opening Dagster's instance would make its tables.
            return f"{len(running)} are running, and Dagster has not been used yet"
    with open_instance() as instance:
        stuck = stuck_evaluations(instance, database, datetime.now(UTC))
        dead = dead_runs(instance, database)
    if not stuck and not dead:
        return f"running: {len(running)}; none is stuck"
    told = [f"{each.key} (run {each.run_id}): {each.why}" for each in stuck[:SHOWN_MAX]]
    if len(stuck) > SHOWN_MAX:
        told.append(f"{len(stuck) - SHOWN_MAX} more")
    told.extend(f"run {run.run_id} of {run.job_name} seems to go on, but its process has ended" for run in dead)
    raise Doubt(
        f"Stuck: {'; '.join(told)}.",
        "Dagster's daemon ends them within a minute while it runs (sensor stuck_evaluations), and so does the next "
        "`spotlab evaluate`.",
    )


def models(settings: Settings) -> str:
    """Whether what may be served can be opened, and whether MLflow shows the same."""
    from spotlab_pipelines.database.engine import connect
    from spotlab_pipelines.inference.mlflow_differences import REMEDY, mlflow_differences
    from spotlab_pipelines.inference.registry import ModelRegistry

    registry = ModelRegistry(connect(settings), settings)
    broken = registry.faults()
    if broken:
        raise Doubt(_some(broken), "Each fails alone, the champion for all; `spotlab models show` tells more of one.")
    found = mlflow_differences(settings, registry)
    if found:
        raise Doubt(_some(found), REMEDY)
    return f"{len(registry.versions())} versions, none broken, MLflow shows the same"


def _some(sentences: list[str]) -> str:
    more = [f"{len(sentences) - SHOWN_MAX} more."] if len(sentences) > SHOWN_MAX else []
    return " ".join(sentences[:SHOWN_MAX] + more)
