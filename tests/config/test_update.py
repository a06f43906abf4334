"""Settings of `lensmith update`."""

from typing import Any

import pytest

from lensmith.config.update import UpdateSettings
from lensmith.errors import SettingsError


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "neither model nor bundle"), ({"model": "flowers", "bundle": "b"}, "model and bundle")],
)
def test_one_of_model_and_bundle_names_what_is_trained_again(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        UpdateSettings.resolve({"data": "photos", **given})
    assert expected in refused.value.arrived
    assert "Path(" not in refused.value.arrived, "settings are shown, not objects of Python"
