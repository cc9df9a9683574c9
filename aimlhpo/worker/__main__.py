"""`python -m aimlhpo.worker FD PARENT [RANK]`: a worker, or with RANK one of the other ranks of a worker.

Started by an agent or by rank 0, never by hand; FD is the pipe to it and PARENT its process.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from aimlhpo.processes import die_with_parent
from aimlhpo.worker.device_guard import LightningGuard
from aimlhpo.worker.worker import run_rank, run_worker

if __name__ == "__main__":
    descriptor, parent, *rank = map(int, sys.argv[1:])
    die_with_parent(parent)
    LightningGuard.install()
    if rank:
        run_rank(Connection(descriptor), rank[0])
    else:
        run_worker(Connection(descriptor))
