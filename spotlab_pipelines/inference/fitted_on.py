"""What is kept of the data that a version was fitted on: the bins for drift, a fingerprint, its source. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spotlab_pipelines.errors import InvalidInput
from spotlab_pipelines.features.specs import get_spec
from spotlab_pipelines.market.canonical import content_id
from spotlab_pipelines.market.traces import ACCOUNTS

if TYPE_CHECKING:
    import pandas as pd

    from spotlab_pipelines.features.drift import Reference
    from spotlab_pipelines.inference.estimators import HorizonEstimator

NO_DATA = "no data"
"""The source that a fit on nothing names. One that names none may have been fitted on anything."""
BASE = "base_version"
"""The parameter of a recalibrated version that names the one it was made of."""


def source_of(params: Mapping[str, str]) -> str | None:
    """What a fit with these parameters learned from, in a word: accounts, a trace, a version and what taught its maps.

    Or `NO_DATA`, or what whoever registered a package's model said; None where nobody said anything.
    """
    source = params.get("source")
    if source is None:
        return params.get("data")
    what = source if source in (ACCOUNTS, NO_DATA) else f"trace {source}"
    return f"{params[BASE]} on {what}" if BASE in params else what


def reference_of_training(
    training: pd.DataFrame | None, estimator: HorizonEstimator, feature_spec: str
) -> Reference | None:
    """The bins of its training features that the estimator reads; None if there are none."""
    from spotlab_pipelines.features.drift import reference_of

    if training is None:
        return None
    indicators = {each.name: each.indicator for each in get_spec(feature_spec).features if each.indicator}
    # An indicator is the last bin of each feature that it speaks of.
    names = [name for name in estimator.feature_names if name not in indicators.values()]
    return reference_of(training, names, indicators)


def fingerprint_of(given: str | None, training: pd.DataFrame | None) -> str | None:
    """The fingerprint that is given, or the hash of the training data's content; None if there are none.

    Raises:
        InvalidInput: what is given is not 64 hex digits.
    """
    if given is None:
        return None if training is None else content_id({"training": training}, {})
    if re.fullmatch(r"[0-9a-f]{64}", given) is None:
        raise InvalidInput(f"Expected a fingerprint of 64 hex digits, got {given!r}.")
    return given
