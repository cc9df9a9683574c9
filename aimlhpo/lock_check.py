"""Whether file locks hold between the nodes of a study: the mount table may not say, the other agents' leases do.

A living agent keeps its lease locked. Where another node can take that lock, locks do not work between the two, and
neither do the ledger and a journal file.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from aimlhpo.errors import StorageError
from aimlhpo.leases import Holder, boot_id, holders
from aimlhpo.locks import try_lock

_SILENT = 1 / 3  # of the grace period: a living agent has renewed its lease by then
_LOOK = 0.2  # seconds


def verify_shared_locks(directory: Path, myself: Holder, grace_period: float) -> None:
    """Return when no living agent of another host has a lock that this one could take.

    Waits (a third of `grace_period` at most) only for an agent that has just died. Raises StorageError in the agent
    that came later of two between which locks do not work: the earlier one goes on alone.
    """
    deadline = time.monotonic() + _SILENT * grace_period
    others = [holder for holder in holders(directory) if holder.boot != boot_id() and _is_earlier(holder, myself)]
    suspects = {holder: age for holder in others if (age := _unlocked_since(directory, holder)) is not None}
    while suspects:
        last = time.monotonic() >= deadline  # one look after it: this process may have been stopped meanwhile
        for holder, before in list(suspects.items()):
            renewed = _unlocked_since(directory, holder)
            if renewed is None:
                del suspects[holder]
            elif renewed > before:
                raise StorageError(_told(directory, holder))
        if last:
            return
        time.sleep(_LOOK)


def _is_earlier(other: Holder, myself: Holder) -> bool:
    return (other.started, other.agent) < (myself.started, myself.agent)


def _unlocked_since(directory: Path, holder: Holder) -> int | None:
    """When the lease was last renewed (ns), if its lock can be taken; None where it is locked or gone."""
    try:
        fd = os.open(directory / f"{holder.agent}.json", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(fd).st_mtime_ns if try_lock(fd) else None
    finally:
        os.close(fd)


def _told(directory: Path, holder: Holder) -> str:
    return (
        f"file locks do not work between this node and {holder.host}, where an agent of the study runs already:\n"
        f"    its lock under {directory} could be taken here. This agent stops, that one goes on alone.\n"
        "    Put save_path (and a journal) where locks work between nodes (NFS without nolock and local_lock, Lustre\n"
        "    mounted with flock, GPFS), or run the study in one job with several GPUs."
    )
