"""Where frameworks miss a device, in their own words, the cause says what to write. Lightning's own part of this is
tested in tests/frameworks.
"""

from __future__ import annotations

import pytest

from aimlhpo.worker.worker import cause_of


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: invalid device ordinal\nCUDA kernel errors might be asynchronously reported",
        "Invalid device id",
        "You requested gpu: [0, 1]\n But your machine only has: [0]",
        "You set `devices=4` in Lightning, but the product (4 * 1) does not match the world size (2).",
    ],
)
def test_a_device_that_is_missing(said: str) -> None:
    cause = cause_of(RuntimeError(said))
    assert cause.startswith(f"exception: RuntimeError: {said.splitlines()[0]}; ")
    assert "gpus_per_worker" in cause


def test_another_error_is_left_as_it_is() -> None:
    assert cause_of(RuntimeError("CUDA error: an illegal memory access")) == (
        "exception: RuntimeError: CUDA error: an illegal memory access"
    )
