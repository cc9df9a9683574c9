"""`python -m aimlhpo.worker FD PARENT [RANK]`: the fork server; with RANK 0 a worker, else another rank of one.

Started by a command, an agent or rank 0, never by hand; FD is the connection to it and PARENT its process.
"""

from __future__ import annotations

import socket
import sys
from multiprocessing.connection import Connection

from aimlhpo.processes import die_with_parent
from aimlhpo.worker.device_guard import LightningGuard
from aimlhpo.worker.fork_server import ForkServerLoop
from aimlhpo.worker.worker import run_rank, run_worker

if __name__ == "__main__":
    descriptor, parent, *rank = map(int, sys.argv[1:])
    die_with_parent(parent)
    LightningGuard.install()
    if not rank:
        ForkServerLoop(socket.socket(fileno=descriptor), parent).run()
    elif rank[0] == 0:
        run_worker(Connection(descriptor))
    else:
        run_rank(Connection(descriptor), rank[0])
