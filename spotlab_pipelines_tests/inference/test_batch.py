"""Many versions at once: the same as one by one; one that fails harms no other, a failing champion ends it by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spotlab_pipelines.errors import FeatureOutOfRange, ModelError, ModelTampered, StoreUnavailable
from spotlab_pipelines.features import matrix
from spotlab_pipelines.features.specs import V1, get_spec
from spotlab_pipelines.inference.adapter import BaseModelAdapter
from spotlab_pipelines.inference.batch import predict
from spotlab_pipelines.inference.estimators import AdvisorRateModel, HorizonEstimator
from spotlab_pipelines.market.frames import POOL_KEY
from spotlab_pipelines_tests.inference.models import logistic, of_spec

ROWS = 1000


class Broken(HorizonEstimator):
    """Does one thing wrong."""

    feature_names = V1.names
    horizons_h = (1, 6, 12)

    def __init__(self, does: str = "raises") -> None:
        self.does = does

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        if self.does == "writes":
            X[:, 0] = 0.0
        if self.does == "exits":
            raise SystemExit(3)
        if self.does == "blames a store":
            raise StoreUnavailable("Redis does not answer.")
        if self.does == "raises":
            raise ValueError("postgresql://user:secret@host")
        answer = np.full((len(X), 3), {"NaN": np.nan, "two": 2.0}.get(self.does, 0.5))
        return answer[:, :2] if self.does == "shape" else answer


class Opening:
    """Opens the models it was given."""

    def __init__(self, **models: Any) -> None:
        self.models = models

    def open(self, row: Any) -> BaseModelAdapter:
        found = self.models[row.version]
        if isinstance(found, Exception):
            raise found
        spec, estimator = found
        return BaseModelAdapter(version=row.version, feature_version=spec, estimator=estimator)


def scored(tables: dict[str, pd.DataFrame], champion: str = "a", **models: Any) -> Any:
    rows: Any = [
        SimpleNamespace(version=name, role="champion" if name == champion else "challenger") for name in models
    ]
    registry: Any = Opening(**models)
    return predict(registry, rows, tables)


def table(spec: str, rows: int = ROWS) -> pd.DataFrame:
    generator = np.random.default_rng(4)
    keys = {name: pd.Series([f"{name}-{row}" for row in range(rows)], dtype="str") for name in POOL_KEY}
    return pd.DataFrame({**keys, **{name: generator.random(rows) for name in get_spec(spec).names}})


def by_version(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {
        str(version): block[["p_1h", "p_6h", "p_12h"]].to_numpy()
        for version, block in frame.groupby("model_version", sort=False)
    }


def test_in_one_batch_versions_of_several_specs_say_what_they_say_alone(monkeypatch: pytest.MonkeyPatch):
    # Blocks of 12 … 300 rows: several for each.
    monkeypatch.setattr(matrix, "BLOCK_VALUES", 300)
    tables = {"v1": table("v1"), "v2": table("v2").head(700)}
    models = {"a": ("v1", AdvisorRateModel()), "b": ("v2", of_spec("v2")[0]), "c": ("v1", logistic())}
    found = scored(tables, **models)
    assert found.failed == {}
    assert found.frame["model_version"].tolist() == ["a"] * ROWS + ["b"] * 700 + ["c"] * ROWS
    keys = pd.concat([tables[models[name][0]][list(POOL_KEY)] for name in models], ignore_index=True)
    pd.testing.assert_frame_equal(found.frame[list(POOL_KEY)], keys)
    for name, predicted in by_version(found.frame).items():
        spec, estimator = models[name]
        model = BaseModelAdapter(version=name, feature_version=spec, estimator=estimator)
        np.testing.assert_array_equal(predicted, model.predict_batch(tables[spec], spec))
        whole = np.maximum.accumulate(estimator.predict(tables[spec][list(model.spec.names)].to_numpy()), axis=1)
        np.testing.assert_allclose(predicted, whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        (ModelTampered("not the approved files."), "ModelTampered: not the approved files."),
        (
            ("v2", of_spec("v2")[0]),
            "FeatureVersionMismatch: b was fitted on feature spec v2; there are",
        ),
        (("v1", Broken("raises")), "ValueError, raised in test_batch.py, line "),
        (("v1", Broken("writes")), "ValueError, raised in test_batch.py, line "),
        (("v1", Broken("exits")), "SystemExit, raised in test_batch.py, line "),
        (("v1", Broken("blames a store")), "StoreUnavailable: Redis does not answer."),
        (("v1", Broken("NaN")), "ModelError: b must give (1000, 3) probabilities in [0, 1]"),
        (("v1", Broken("two")), "ModelError: b must give"),
        (("v1", Broken("shape")), "ModelError: b must give (1000, 3) probabilities in [0, 1]; got shape (1000, 2)"),
        (("v1", AdvisorRateModel(horizons_h=(1, 6))), "IntegrityError: b predicts (1, 6) h; the log has (1, 6, 12) h."),
    ],
    ids=["tampered", "no features", "raises", "writes", "exits", "blames", "NaN", "two", "shape", "horizons"],
)
def test_a_version_that_fails_is_named_and_harms_no_other(failing: Any, said: str):
    tables, sound = {"v1": table("v1")}, {"a": ("v1", AdvisorRateModel()), "c": ("v1", logistic())}
    found = scored(tables, a=sound["a"], b=failing, c=sound["c"])
    assert list(found.failed) == ["b"]
    assert found.failed["b"].startswith(said)
    assert "secret" not in found.failed["b"]
    pd.testing.assert_frame_equal(found.frame, scored(tables, **sound).frame)
    with pytest.raises(ModelError if "raised" in said else Exception, match="The champion b failed"):
        scored(tables, champion="b", **sound, b=failing)


def test_a_feature_out_of_range_fails_those_alone_that_read_it():
    tables = {"v1": table("v1")}
    tables["v1"].loc[3, "price_position"] = np.nan
    found = scored(tables, a=("v1", AdvisorRateModel()), b=("v1", logistic()), c=("v1", logistic(1)))
    assert list(found.failed) == ["b", "c"]
    assert "price_position in [0, 1], got row 3 = nan" in found.failed["c"]
    assert list(by_version(found.frame)) == ["a"]
    with pytest.raises(FeatureOutOfRange, match="The champion b failed"):
        scored(tables, champion="b", a=("v1", AdvisorRateModel()), b=("v1", logistic()))


def test_a_store_that_does_not_answer_is_no_failure_of_a_version():
    with pytest.raises(StoreUnavailable):
        scored({"v1": table("v1")}, a=("v1", AdvisorRateModel()), b=StoreUnavailable("Postgres does not answer."))


def test_of_no_versions_or_no_pools_there_is_a_frame_of_the_same_shape():
    tables = {"v1": table("v1")}
    full = scored(tables, a=("v1", AdvisorRateModel())).frame
    for empty in (scored(tables).frame, scored({"v1": tables["v1"].head(0)}, a=("v1", AdvisorRateModel())).frame):
        assert len(empty) == 0
        pd.testing.assert_series_equal(empty.dtypes, full.dtypes)
