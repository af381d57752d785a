"""Which instance types can stand in for others, and so what an evaluation wants to know of the market.

Pure functions over frames: no I/O, no clock, no settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spotlab_pipelines.market.frames import among, family_of


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
    own, fits = _fits(frame, own_types, flexibility_factor)
    rows, columns = np.nonzero(fits)
    names = frame["instance_type"].array
    return pd.DataFrame({"own_type": names.take(own[rows]), "instance_type": names.take(columns)})


def wanted_market(fleet: pd.DataFrame, catalogue: pd.DataFrame, flexibility_factor: float) -> Wanted:
    """What an evaluation of `fleet` (region, instance_type, product) wants to know, given the `catalogue` frame.

    A fleet's type that the catalogue does not know wants its own family's known types and itself.
    """
    known, family = catalogue["instance_type"], family_of(catalogue["instance_type"])
    own, fits = _fits(catalogue, fleet["instance_type"].unique().tolist(), flexibility_factor)
    types, families, products = {}, {}, {}
    for region in sorted(fleet["region"].unique()):
        here = (fleet["region"] == region).to_numpy(dtype=bool)
        own_here = pd.unique(fleet["instance_type"].array[here]).tolist()
        reached = fits[among(known, own_here)[own]].any(axis=0)
        wanted_families = {*family.array[reached].tolist(), *(name.partition(".")[0] for name in own_here)}
        types[region] = tuple(sorted({*known.array[among(family, wanted_families)].tolist(), *own_here}))
        families[region] = tuple(sorted(wanted_families))
        products[region] = tuple(sorted(pd.unique(fleet["product"].array[here]).tolist()))
    return Wanted(types=types, families=families, products=products)


def _fits(
    catalogue: pd.DataFrame, own_types: Iterable[str], flexibility_factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """The (n,) rows of `own_types` in the catalogue, and (n, types) whether a type fits; see `fitting_types`."""
    own = np.flatnonzero(among(catalogue["instance_type"], own_types))
    fits = np.ones((len(own), len(catalogue)), dtype=bool)
    for column in ("vcpus", "memory_mib"):
        size = catalogue[column].to_numpy()
        least = size[own][:, None]
        fits &= (size >= least) & (size <= flexibility_factor * least)
    architecture = pd.factorize(catalogue["architecture"])[0]
    fits &= architecture == architecture[own][:, None]
    accelerators, kinds = pd.factorize(catalogue["accelerators"])
    bare = (kinds == "")[accelerators]
    fits &= bare[own][:, None] | (accelerators == accelerators[own][:, None])
    return own, fits
