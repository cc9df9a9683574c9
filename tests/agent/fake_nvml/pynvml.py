"""What stands in for nvidia-ml-py: one GPU, with what the file `gpu.json` in $FAKE_NVML says.

Keys: `total` and `others` in MiB, `utilisation` in percent by how many trials have run at a time so far,
`hides_processes`, `strangers` (the numbers are those of other processes, as outside of a container), `forbids` (it may
not be asked for processes), `broken`, `exclusive` and `mig`. GPU 1 cannot be read. What each trial takes is in a file
there, named after its process.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(os.environ["FAKE_NVML"])
MIB = 1 << 20
MOST_AT_A_TIME = [0]
NVML_DEVICE_MIG_ENABLE = 1
NVML_COMPUTEMODE_PROHIBITED, NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 2, 3


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801 -- nvidia-ml-py's own name
    pass


class NVMLError_NoPermission(NVMLError):  # noqa: N801
    pass


class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801
    pass


def gpu() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "gpu.json").read_text())
    return found


def taken() -> dict[int, int]:
    """MiB of each living process."""
    files = [file for file in FOLDER.glob("taken-*") if Path("/proc", file.name.removeprefix("taken-")).exists()]
    found = {}
    for file in files:
        try:
            found[int(file.name.removeprefix("taken-"))] = int(file.read_text())
        except FileNotFoundError:
            continue
    return found


def nvmlInit() -> None:  # noqa: N802
    if gpu().get("broken"):
        raise NVMLError("Driver Not Loaded")


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    if index != 0:
        raise NVMLError("Invalid Argument")
    return index


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:  # noqa: N802
    used = sum(taken().values()) + gpu().get("others", 0)
    return SimpleNamespace(total=gpu()["total"] * MIB, used=used * MIB)


def nvmlDeviceGetComputeMode(handle: int) -> int:  # noqa: N802
    return NVML_COMPUTEMODE_EXCLUSIVE_PROCESS if gpu().get("exclusive") else 0


def nvmlDeviceGetMigMode(handle: int) -> list[int]:  # noqa: N802
    if "mig" not in gpu():
        raise NVMLError_NotSupported("Not Supported")
    return [1, 1]


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:  # noqa: N802
    curve = gpu().get("utilisation")
    if curve is None:
        raise NVMLError_NotSupported("Not Supported")
    MOST_AT_A_TIME[0] = max(MOST_AT_A_TIME[0], len(taken()))
    return SimpleNamespace(gpu=curve[MOST_AT_A_TIME[0]])


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:  # noqa: N802
    if gpu().get("forbids"):
        raise NVMLError_NoPermission("Insufficient Permissions")
    if gpu().get("hides_processes"):
        return []
    if gpu().get("strangers"):
        return [SimpleNamespace(pid=1, usedGpuMemory=sum(taken().values()) * MIB)]
    # Somebody else's, and one of the number that drivers give where they cannot tell it.
    listed = {**taken(), 1: gpu().get("others", 0), 4294967295: 1}
    return [SimpleNamespace(pid=pid, usedGpuMemory=memory * MIB) for pid, memory in listed.items()]
