"""Histogram gradient boosting, fitted by scikit-learn and kept as the plain arrays of its trees.

scikit-learn's own object holds classes that may run code when they are opened; the trees are arrays, and are walked by
the very code that scikit-learn walks them with.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from spotlab_pipelines.inference.estimators import HorizonEstimator, known_rows
from spotlab_pipelines.settings import HORIZONS_H

NO_CATEGORIES = np.zeros((0, 8), dtype=np.uint32)


class BoostingModel(HorizonEstimator):
    """One gradient boosting of shallow trees per horizon.

    Attributes:
        baseline_: (n_horizons,) log odds before any tree.
        trees_: (n_nodes,) the nodes of all trees of all horizons, one after the other.
        sizes_: (n_horizons, max_iter) how many nodes each tree has; 0 where there is none.
    """

    baseline_: np.ndarray
    trees_: np.ndarray
    sizes_: np.ndarray

    def __init__(
        self,
        feature_names: tuple[str, ...] | list[str] = (),
        horizons_h: tuple[int, ...] | list[int] = HORIZONS_H,
        max_iter: int = 100,
        learning_rate: float = 0.05,
        max_leaf_nodes: int = 4,
        min_samples_leaf: int = 200,
    ) -> None:
        self.feature_names = feature_names
        self.horizons_h = horizons_h
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes
        self.min_samples_leaf = min_samples_leaf

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fit on X (n, k) and labels y (n, n_horizons): 1 interrupted, 0 survived, NaN censored (left out).

        A leaf has `min_samples_leaf` rows, or a fiftieth of them where they are few.

        Raises:
            NotEnoughData: a horizon has only one of the two outcomes.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        matrix, labels = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
        baselines, trees = [], []
        sizes = np.zeros((len(self.horizons_h), self.max_iter), dtype=np.int64)
        for column, horizon in enumerate(self.horizons_h):
            known = known_rows(labels, column, horizon_h=horizon, what="Gradient boosting")
            fitted = HistGradientBoostingClassifier(
                max_iter=self.max_iter,
                learning_rate=self.learning_rate,
                max_leaf_nodes=self.max_leaf_nodes,
                min_samples_leaf=min(self.min_samples_leaf, max(1, int(known.sum()) // 50)),
                early_stopping=False,  # type: ignore[arg-type]
                random_state=0,
            ).fit(matrix[known], labels[known, column])
            baselines.append(float(fitted._baseline_prediction.ravel()[0]))  # pyright: ignore[reportAttributeAccessIssue]
            grown = [iteration[0].nodes for iteration in fitted._predictors]
            sizes[column, : len(grown)] = [len(nodes) for nodes in grown]
            trees += grown
        self.baseline_, self.trees_, self.sizes_ = np.array(baselines), np.concatenate(trees), sizes
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities of X (n, k); each horizon by its own trees."""
        from scipy.special import expit
        from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

        matrix = np.ascontiguousarray(X, dtype=np.float64)
        raw = np.tile(self.baseline_, (len(matrix), 1))
        start = 0
        for column, sizes in enumerate(self.sizes_):
            for size in sizes[sizes > 0]:
                tree = TreePredictor(self.trees_[start : start + size], NO_CATEGORIES, NO_CATEGORIES)
                raw[:, column] += tree.predict(matrix, NO_CATEGORIES, np.zeros(0, dtype=np.uint32), n_threads=1)
                start += size
        return expit(raw)

    def check_arrays(self) -> None:
        """Every tree is one: walked from its root, each step leads to a later node of it and reads a column of X.

        Raises:
            ValueError: scikit-learn's code would walk for ever, or out of the arrays.
        """
        from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

        nodes, sizes = self.trees_, self.sizes_[self.sizes_ > 0]
        if nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or sizes.sum() != len(nodes):
            raise ValueError(
                f"expected nodes of trees of the sizes {sizes.tolist()}, got {nodes.shape} of {nodes.dtype}"
            )
        ends = np.repeat(np.cumsum(sizes), sizes)
        place = np.arange(len(nodes))
        start = np.repeat(np.cumsum(sizes) - sizes, sizes)
        inner = nodes["is_leaf"] == 0
        leads = [(start + nodes[side] > place) & (start + nodes[side] < ends) for side in ("left", "right")]
        reads = (nodes["feature_idx"] < len(self.feature_names)) & (nodes["is_categorical"] == 0)
        wrong = inner & ~(leads[0] & leads[1] & reads)
        if wrong.any():
            raise ValueError(f"expected trees whose nodes lead to later ones; {int(wrong.sum())} do not")
