"""What `spotlab doctor` looks at: every setting and store, what is wrong with it and what to do. It changes nothing.

Stores that are down are not started: that they are down is the finding. Each look is a function of stores.py,
surroundings.py or work.py that returns one line or raises an error, whose message and remedy become the line.
"""

from __future__ import annotations

from collections.abc import Iterator

from spotlab_pipelines.doctor import stores, surroundings, work
from spotlab_pipelines.doctor.findings import Finding, failed, look
from spotlab_pipelines.local.stores import status
from spotlab_pipelines.settings import get_settings

__all__ = ["Finding", "examine", "look"]


def examine() -> Iterator[Finding]:
    """Look at everything, one finding at a time; after unreadable settings there is nothing else to look at."""
    try:
        settings = get_settings()
        found = {store.name: store for store in status(settings)}
    except Exception as error:
        yield failed("settings", error)
        return
    yield look("settings", surroundings.variables)
    if found["postgres"].state != "configured" or found["redis"].state != "configured":
        yield look("data directory", lambda: stores.data_directory(settings))
        yield look("programs", lambda: stores.programs(settings))
    domain = look("postgres", lambda: stores.postgres(settings, found["postgres"]))
    yield domain
    if found["postgres"].state != "stopped" and not domain.found.startswith("StoreUnavailable"):
        dagster = look("dagster database", lambda: stores.other_database(settings, "dagster"))
        yield dagster
        mlflow = look("mlflow database", lambda: stores.other_database(settings, "mlflow"))
        yield mlflow
        if domain.state == mlflow.state == "OK":
            yield look("models", lambda: work.models(settings))
        if domain.state == dagster.state == "OK":
            yield look("evaluations", lambda: work.evaluations(settings))
    yield look("redis", lambda: stores.redis(settings, found["redis"]))
    yield look("archive", lambda: stores.archive(settings))
    yield look("mlruns", lambda: stores.mlruns(settings))
    yield look("advisor", lambda: surroundings.advisor(settings))
    yield look(
        "catalogue account",
        lambda: surroundings.catalogue_account(settings, registry_is_there=domain.state == "OK"),
    )
    yield look("products", lambda: surroundings.products(settings))
    yield look("pricing region", lambda: surroundings.pricing_region(settings))
    yield look("times to live", lambda: surroundings.times_to_live(settings))
    for name, port in (("dagster", settings.dagster_port), ("mlflow", settings.mlflow_port)):
        yield look(f"{name} port", lambda name=name, port=port: surroundings.port(name, port))
    own = look("aws credentials", lambda: surroundings.credentials(settings, registry_is_there=domain.state == "OK"))
    yield own
    if own.state == "OK" and domain.state == "OK":
        yield from surroundings.accounts(settings)
