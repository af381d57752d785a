"""Which instance types can stand in for others, and so what an evaluation wants to know of the market.

Pure functions over frames: no I/O, no clock, no settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spotlab_pipelines.market.frames import family_of


@dataclass(frozen=True)
class Wanted:
    """What an account's evaluation reads of the market, by region.

    Attributes:
        types: region -> every instance type of the wanted families, sorted.
        families: region -> families of the fleet's types and of all types that fit them, sorted. Whole families,
            because family_stress_index is a mean over all of a family's pools.
        products: region -> product descriptions of the fleet there, sorted.
    """

    types: dict[str, tuple[str, ...]]
    families: dict[str, tuple[str, ...]]
    products: dict[str, tuple[str, ...]]


def fitting_types(catalogue: pd.DataFrame, own_types: Iterable[str], flexibility_factor: float) -> pd.DataFrame:
    """The types that could replace each of `own_types`, itself included.

    A type fits if its vCPUs and its memory are each at least the own type's and at most `flexibility_factor` times
    as much, and its architecture is the same. If the own type has accelerators, only the same accelerators fit; if it
    has none, a type with some may fit.

    Args:
        catalogue: catalogue frame, one row a type.
        own_types: types to replace; one that the catalogue does not know has no row in the result.
        flexibility_factor: at least 1.

    Returns:
        Frame (own_type, instance_type), sorted, one row a pair.
    """
    frame = catalogue.sort_values("instance_type", ignore_index=True)
    own = np.flatnonzero(frame["instance_type"].isin(sorted(set(own_types))).to_numpy())[:, None]
    fits = np.ones((len(own), len(frame)), dtype=bool)
    for column in ("vcpus", "memory_mib"):
        size = frame[column].to_numpy()
        fits &= (size >= size[own]) & (size <= flexibility_factor * size[own])
    architecture = pd.factorize(frame["architecture"])[0]
    fits &= architecture == architecture[own]
    accelerators = pd.factorize(frame["accelerators"])[0]
    bare = (frame["accelerators"] == "").to_numpy()
    fits &= bare[own] | (accelerators == accelerators[own])
    rows, columns = np.nonzero(fits)
    names = frame["instance_type"].array
    return pd.DataFrame({"own_type": names.take(own[:, 0][rows]), "instance_type": names.take(columns)})


def wanted_market(fleet: pd.DataFrame, catalogue: pd.DataFrame, flexibility_factor: float) -> Wanted:
    """What an evaluation of `fleet` (region, instance_type, product) wants to know, given the `catalogue` frame.

    A fleet's type that the catalogue does not know wants its own family's known types and itself.
    """
    fits = fitting_types(catalogue, fleet["instance_type"].unique(), flexibility_factor)
    known_family = family_of(catalogue["instance_type"])
    types, families, products = {}, {}, {}
    for region, part in fleet.groupby("region", sort=True):
        own = part["instance_type"].drop_duplicates()
        reachable = pd.concat([own, fits.loc[fits["own_type"].isin(own), "instance_type"]])
        wanted_families = family_of(reachable).unique()
        members = catalogue.loc[known_family.isin(wanted_families), "instance_type"]
        types[str(region)] = tuple(sorted({*members, *own}))
        families[str(region)] = tuple(sorted(wanted_families))
        products[str(region)] = tuple(sorted(part["product"].unique()))
    return Wanted(types=types, families=families, products=products)
