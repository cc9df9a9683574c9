"""Syne Tune's local backend: a process for each trial."""

from __future__ import annotations

from benchmarks.peers.peer import PROGRAMS, Peer

PEER = Peer(
    "syne",
    "Syne Tune",
    "syne-tune",
    lambda python, spec: [[python, str(PROGRAMS / "syne_launch.py")]],
    requirement="syne-tune==0.16.0",
)
