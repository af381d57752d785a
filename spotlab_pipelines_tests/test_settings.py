"""Settings: no number without bounds, and what is malformed is named without its value."""

from __future__ import annotations

import pytest

from spotlab_pipelines.errors import SettingsError
from spotlab_pipelines.settings import Settings, get_settings

NUMBERS = [name for name, field in Settings.model_fields.items() if field.annotation in (int, float)]


@pytest.fixture(autouse=True)
def _forgotten():
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.parametrize("value", ["1e308", "inf", "nan", "-1"])
@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_bounds(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"SPOTLAB_{name.upper()}"
    whole = Settings.model_fields[name].annotation is int
    monkeypatch.setenv(variable, "9" * 15 if whole and value == "1e308" else value)
    with pytest.raises(SettingsError, match=variable):
        get_settings()
