"""What a worker says of the error that has ended a trial."""

from __future__ import annotations

import pytest
from optuna_integration import TorchDistributedTrial

from aimlhpo.worker.command import tells_of_memory
from aimlhpo.worker.worker import cause_of


def test_error_of_optunas_trial_for_torch_distributed_says_what_takes_its_place() -> None:
    with pytest.raises(RuntimeError) as caught:
        TorchDistributedTrial(None)
    cause = cause_of(caught.value)
    assert cause.startswith("exception: RuntimeError: torch distributed is not initialized")
    assert "leave TorchDistributedTrial out: each rank has a trial of its own" in cause


@pytest.mark.parametrize(
    ("error", "runs_out"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."), True),
        (RuntimeError("StatusCode.RESOURCE_EXHAUSTED: Received message larger than max"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_memory_that_is_too_small_is_told_from_other_errors(error: Exception, runs_out: bool) -> None:
    assert (cause_of(error) == "out of memory") is runs_out
    assert tells_of_memory(f"Traceback:\n{type(error).__name__}: {error}") is runs_out
