"""What identifies a fit: one hash over the arrays and parameters of a model, whatever bytes its file has. Pure.

The same examples and parameters give the same hash; MLflow's files carry times and ids and never do.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import orjson


def fit_sha256(model: Any) -> str:
    """Hash an estimator: the names of its classes, its parameters and all that it learned, by name."""
    return hashlib.sha256(orjson.dumps(_canonical(model), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _canonical(value: Any) -> Any:
    """As JSON; an array as its shape and the hash of its little-endian bytes, field by field if it has fields."""
    if isinstance(value, np.ndarray):
        if value.dtype.names:
            return {name: _canonical(np.ascontiguousarray(value[name])) for name in value.dtype.names}
        little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
        return [value.dtype.kind, list(value.shape), hashlib.sha256(little.tobytes()).hexdigest()]
    if isinstance(value, dict):
        return {str(name): _canonical(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return float(value).hex() if isinstance(value, float) else value
    return [type(value).__name__, _canonical(vars(value))]
