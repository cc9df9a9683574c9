"""`python -m aimlhpo.worker FD PARENT [RANK]`: the fork server; with RANK 0 a worker, else another rank of one.

Started by a command, an agent or rank 0, never by hand; FD is the connection to it and PARENT its process. With the
word `nodes` as RANK it is a launcher of processes on other nodes, and without any words the keeper of one of these.
"""

from __future__ import annotations

import socket
import sys
from multiprocessing.connection import Connection

from aimlhpo.processes import die_with_parent
from aimlhpo.worker.device_guard import LightningGuard
from aimlhpo.worker.fork_server import ForkServerLoop
from aimlhpo.worker.nodes import LAUNCHER, NodeKeeper, NodeLauncher
from aimlhpo.worker.worker import run_rank, run_worker

if __name__ == "__main__":
    if len(sys.argv) == 1:
        NodeKeeper().run()
    descriptor, parent = map(int, sys.argv[1:3])
    die_with_parent(parent)
    LightningGuard.install()
    match sys.argv[3:]:
        case []:
            ForkServerLoop(socket.socket(fileno=descriptor), parent).run()
        case ["0"]:
            run_worker(Connection(descriptor))
        case [word] if word == LAUNCHER:
            NodeLauncher(Connection(descriptor)).run()
        case [rank]:
            run_rank(Connection(descriptor), int(rank))
