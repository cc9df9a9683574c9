"""What editors and the documentation are told about the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aimlhpo.check.json_schema import json_schema, reference
from aimlhpo.config.optuna_section import OptunaSection
from aimlhpo.config.schema import MlflowSection, SlurmSection, TensorboardSection
from aimlhpo.config.yaml import load_yaml
from aimlhpo.space.parameter_types import PARAMETER_TYPES, SETTINGS

if TYPE_CHECKING:
    from tests.files import Files

GOOD = """
    reload: 0
    metric: [a, b]
    direction: [minimize, maximize]
    sampler: TPESampler
    pruner: {type: PatientPruner, wrapped_pruner: {type: MedianPruner}, patience: 3, metric: a}
    parameters:
      optimizer:learning_rate: {type: loguniform, settings: {name: lr, low: 1e-5, high: 1e-1}}
      x: {type: categorical, settings: {choices: [1, a, null]}}
"""
BAD = [
    "n_trails: 5",
    "seed: -1",
    "sampler: {type: TPESampler, n_startup: 3}",
    "on_oom: never",
    "parameters: {x: {type: int, settings: {low: 1}}}",
    "parameters: {x: {type: int, settings: {low: 1, high: 2, q: 3}}}",
]


def test_the_schema_takes_what_loading_takes_and_refuses_what_it_refuses(files: Files) -> None:
    import jsonschema

    validator = jsonschema.Draft202012Validator(json_schema())
    above = "log: {mlflow: true, tensorboard: runs}\n"
    above += "slurm: {jobs: 2, batch: {t: 12:00:00, exclusive: true, mem: 4G}, bash: [a]}"
    assert list(validator.iter_errors(load_yaml(files.write(GOOD, above=above).hyperparameters))) == []
    files.load()
    for line in BAD:
        data: Any = load_yaml(files.write(line).hyperparameters)
        assert not validator.is_valid(data), line
        assert files.problems()


@pytest.mark.parametrize("section", [OptunaSection, SlurmSection, MlflowSection, TensorboardSection])
def test_every_key_is_described_and_in_the_table(section: Any) -> None:
    table = reference()
    for key, field in section.model_fields.items():
        assert field.description
        assert f": {key}` |" in table


def test_every_kind_of_parameter_is_in_the_table_and_every_setting_described() -> None:
    table = reference()
    for name, kind in PARAMETER_TYPES.items():
        assert f"| `{name}` |" in table
        assert set(kind.settings) <= set(SETTINGS)


def test_every_cell_of_the_table_is_in_its_column() -> None:
    for block in reference().strip().split("\n\n"):
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1
