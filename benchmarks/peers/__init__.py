"""Those that are compared: one module each, which says how it is set up and started."""

from __future__ import annotations

from benchmarks.peers import aimlhpo, echo, optuna, ray, syne
from benchmarks.peers.peer import Peer

PEERS: dict[str, Peer] = {
    "aimlhpo": aimlhpo.PEER,
    "optuna": optuna.PEER,
    "echo": echo.PEER,
    "syne": syne.PEER,
    "ray": ray.PEER,
}
