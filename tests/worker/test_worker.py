"""What a worker says of the error that has ended a trial."""

from __future__ import annotations

import pytest
from optuna_integration import TorchDistributedTrial

from aimlhpo.worker.worker import cause_of


def test_error_of_optunas_trial_for_torch_distributed_says_what_takes_its_place() -> None:
    with pytest.raises(RuntimeError) as caught:
        TorchDistributedTrial(None)
    cause = cause_of(caught.value)
    assert cause.startswith("exception: RuntimeError: torch distributed is not initialized")
    assert "leave TorchDistributedTrial out: each rank has a trial of its own" in cause
