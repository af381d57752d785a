"""The adapter: how the pipeline talks to any model. It guards what goes in and what comes out.

It knows nothing of files or of the registry (artifacts.py, registry.py), nor of how an estimator was fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from spotlab_pipelines.errors import FeatureMissing, FeatureVersionMismatch, ModelError
from spotlab_pipelines.features.matrix import check_ranges, feature_columns, row_blocks
from spotlab_pipelines.features.specs import FeatureSpec, get_spec

if TYPE_CHECKING:
    import pandas as pd

    from spotlab_pipelines.inference.estimators import HorizonEstimator


class BaseModelAdapter:
    """One loaded version. Subclass and override `predict_matrix` to serve a model of another kind.

    Args:
        version: `family/number`.
        feature_version: the feature spec that the model was fitted on.
        estimator: declares `feature_names` and `horizons_h`, predicts (n, k) → (n, n_horizons).

    Raises:
        FeatureVersionMismatch: no such spec.
        FeatureMissing: the estimator expects a feature that the spec does not have.
    """

    def __init__(self, *, version: str, feature_version: str, estimator: HorizonEstimator) -> None:
        self.version = version
        self.horizons_h: tuple[int, ...] = tuple(int(horizon) for horizon in estimator.horizons_h)
        self._estimator = estimator
        self._spec: FeatureSpec = get_spec(feature_version).subset(tuple(estimator.feature_names))

    @property
    def estimator(self) -> HorizonEstimator:
        """What is served, as it was opened."""
        return self._estimator

    @property
    def spec(self) -> FeatureSpec:
        """The features the model reads, in the order of its columns, with their ranges."""
        return self._spec

    def get_feature_version(self) -> str:
        """The feature spec that the model was fitted on."""
        return self._spec.version

    def get_expected_features(self) -> list[str]:
        """The features the model reads, in the order of its columns."""
        return list(self._spec.names)

    def preprocess(self, features: Mapping[str, float]) -> np.ndarray:
        """One pool's features, by name and in any order, as a (1, k) array.

        Raises:
            FeatureMissing: an expected feature is not there or None.
            FeatureOutOfRange: a value is NaN, infinite or out of the range of its spec.
        """
        missing = [name for name in self._spec.names if features.get(name) is None]
        if missing:
            raise FeatureMissing(
                f"{self.version} expects the features {', '.join(self._spec.names)}; missing: {', '.join(missing)}."
            )
        row = np.array([[features[name] for name in self._spec.names]], dtype=float)
        check_ranges(row, self._spec)
        return row

    def predict(self, features: Mapping[str, float]) -> dict[int, float]:
        """One pool's interruption probability by horizon in hours, non-decreasing over the horizons."""
        probabilities = np.empty((len(self.horizons_h), 1))
        self.predict_into(self.preprocess(features), probabilities)
        return {horizon: float(p) for horizon, p in zip(self.horizons_h, probabilities[:, 0], strict=True)}

    def predict_with_validation(self, features: Mapping[str, float], feature_version: str) -> dict[int, float]:
        """`predict`, refused if the features were computed by another spec than the model's.

        Raises:
            FeatureVersionMismatch: nothing was predicted.
        """
        self._check_version(feature_version)
        return self.predict(features)

    def predict_batch(self, frame: pd.DataFrame, feature_version: str) -> np.ndarray:
        """The probabilities of many pools, validated once.

        Args:
            frame: one row a pool; its columns may be in any order and more than the model needs.
            feature_version: the spec that `frame` was computed by.

        Returns:
            (n, n_horizons) float64 in [0, 1], non-decreasing along each row.

        Raises:
            FeatureVersionMismatch, FeatureMissing, FeatureOutOfRange: nothing was predicted.
            ModelError: the model itself gave something that is no probability.
        """
        self._check_version(feature_version)
        columns = feature_columns(frame, self._spec)
        out = np.empty((len(self.horizons_h), len(frame)))
        for rows, block in row_blocks(columns):
            self.predict_into(block, out[:, rows])
        return out.T

    def predict_into(self, matrix: np.ndarray, out: np.ndarray) -> None:
        """The probabilities of a matrix that was checked already: scoring checks once for all versions that read it.

        Args:
            matrix: (n, k), each column within the range of its feature; not to be written to.
            out: (n_horizons, n), which is filled.

        Raises:
            ModelError: the model itself gave something that is no probability.
        """
        found = np.asarray(self.predict_matrix(matrix), dtype=float)
        expected = (len(matrix), len(self.horizons_h))
        # NaN makes both extremes NaN, so that neither comparison holds.
        lowest, highest = np.min(found, initial=np.inf), np.max(found, initial=-np.inf)
        if found.shape != expected or not (len(found) == 0 or (lowest >= 0 and highest <= 1)):
            raise ModelError(
                f"{self.version} must give {expected} probabilities in [0, 1]; got shape {found.shape}"
                f" from {lowest:g} to {highest:g}.",
                remedy="Retire this version.",
            )
        out[0] = found[:, 0]
        # Horizons are fitted one by one; being interrupted within 1 h is being interrupted within 6 h.
        for column in range(1, len(out)):
            np.maximum(out[column - 1], found[:, column], out=out[column])

    def predict_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """The model itself: a valid (n, k) matrix to (n, n_horizons)."""
        return self._estimator.predict(matrix)

    def _check_version(self, feature_version: str) -> None:
        if feature_version != self._spec.version:
            raise FeatureVersionMismatch(
                f"{self.version} was fitted on feature spec {self._spec.version}; got features of {feature_version!r}."
            )
