"""Where MLflow says something else than `model_registry`: an alias moved by hand, a version deleted, retagged, its own.

Serving ignores all of it (registry.py never asks MLflow); whoever looks at MLflow should know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from spotlab_pipelines.database.engine import database_errors, database_url, engine_for
from spotlab_pipelines.inference.mlflow_models import CHAMPION_ALIAS, ROLE_TAG
from spotlab_pipelines.inference.mlflow_store import PAGE, all_pages, mlflow_client, mlflow_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient  # noqa: TID251

    from spotlab_pipelines.inference.registry import ModelRegistry
    from spotlab_pipelines.inference.versions import ServingVersion
    from spotlab_pipelines.settings import Settings

REMEDY = (
    "Serving follows model_registry all the same; correct MLflow by hand, or `spotlab models approve|promote|retire`."
)


@dataclass(frozen=True)
class Shown:
    """What MLflow shows.

    Attributes:
        roles: (family, number) -> the tag `spotlab.role`, "none" without one.
        champions: family -> the number that the alias `champion` points to.
    """

    roles: Mapping[tuple[str, int], str]
    champions: Mapping[str, int]


def mlflow_differences(settings: Settings, registry: ModelRegistry) -> list[str]:
    """A sentence for each difference, by version; a few queries on MLflow's database, one on ours.

    None while MLflow has not been used: its tables come at its first use, and no version is registered before.

    Raises:
        StoreUnavailable: Postgres or MLflow's database does not answer.
    """
    with database_errors(), engine_for(database_url(settings, "mlflow"), pool_size=1).connect() as connection:
        if not sa.inspect(connection).has_table("registered_models"):
            return []
    with mlflow_errors():
        seen = shown(mlflow_client(settings))
    # Read last: a version that is being registered is in MLflow first, and would be told as MLflow's own.
    return differences(registry.versions(), seen)


def shown(client: MlflowClient) -> Shown:
    """Read what MLflow shows of versions, roles and champions."""
    versions = all_pages(lambda token: client.search_model_versions(max_results=PAGE, page_token=token))
    families = all_pages(lambda token: client.search_registered_models(max_results=PAGE, page_token=token))
    return Shown(
        roles={(each.name, int(each.version)): each.tags.get(ROLE_TAG, "none") for each in versions},
        champions={each.name: int(each.aliases[CHAMPION_ALIAS]) for each in families if CHAMPION_ALIAS in each.aliases},
    )


def differences(rows: Sequence[ServingVersion], seen: Shown) -> list[str]:
    """A sentence for each difference between the registry and what MLflow shows, by version. Pure."""
    ours = {(row.family, row.number): row for row in rows}
    champions = {row.family: row.number for row in rows if row.role == "champion"}
    found = {
        key: f"{row.version} is deleted in MLflow; here it is {row.status}, role {row.role}."
        for key, row in ours.items()
        # Whoever tidies up what is retired has done nothing wrong.
        if key not in seen.roles and row.status != "retired"
    }
    for key, role in seen.roles.items():
        name = f"{key[0]}/{key[1]}"
        if key not in ours:
            found[key] = f"{name} is in MLflow alone; it is not served."
        elif role != ours[key].role:
            found[key] = f"{name} is tagged {ROLE_TAG} = {role} in MLflow; here its role is {ours[key].role}."
    told = [found[key] for key in sorted(found)]
    for family in sorted({*champions, *seen.champions}):
        here, there = champions.get(family), seen.champions.get(family)
        if here != there:
            told.append(
                f"MLflow's alias {CHAMPION_ALIAS} of {family} points to {_version(family, there)};"
                f" here the champion is {_version(family, here)}."
            )
    return told


def _version(family: str, number: int | None) -> str:
    return f"no version of {family}" if number is None else f"{family}/{number}"
