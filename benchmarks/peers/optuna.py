"""Plain Optuna, in this environment."""

from __future__ import annotations

from benchmarks.peers.peer import PROGRAMS, Peer

PEER = Peer("optuna", "plain Optuna", "optuna", lambda python, spec: [[python, str(PROGRAMS / "plain.py")]])
