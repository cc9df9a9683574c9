"""Ray Tune on one machine: an actor for each trial."""

from __future__ import annotations

from benchmarks.peers.peer import PROGRAMS, Peer

PEER = Peer(
    "ray",
    "Ray Tune",
    "ray",
    lambda python, spec: [[python, str(PROGRAMS / "ray_tune.py")]],
    requirement="ray[tune]==2.60.0",
)
