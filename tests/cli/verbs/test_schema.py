"""`aimlhpo schema`."""

from __future__ import annotations

import json

import pytest

from aimlhpo.cli.main import main


def test_the_schema_is_json_and_knows_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"log", "slurm", "optuna"} <= schema["properties"].keys()
