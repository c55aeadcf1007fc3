"""Settings come from flags and from the environment."""

import pytest

from gram.server.settings import ServerSettings


@pytest.mark.parametrize(
    "name", [name for name, field in ServerSettings.model_fields.items() if isinstance(field.default, int)]
)
def test_each_setting_is_also_an_environment_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = getattr(ServerSettings(), name)
    monkeypatch.setenv(f"GRAM_{name.upper()}", str(default + 1))
    assert getattr(ServerSettings(), name) == default + 1
