"""A fixture for tests that hold with and without Optuna's private names."""

from __future__ import annotations

import pytest

from aimlhpo.storage.optuna_internals import PUBLIC_ONLY


@pytest.fixture(params=["private names", "public interface"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Runs a test twice: as usual, and with Optuna's public interface alone. Whether private names are used."""
    if request.param == "public interface":
        monkeypatch.setenv(PUBLIC_ONLY, "1")
    return bool(request.param == "private names")
