"""`python -m aimlhpo.worker FD PARENT`: started by an agent, never by hand."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from aimlhpo.processes import die_with_parent
from aimlhpo.worker.worker import run_worker

if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    run_worker(Connection(int(sys.argv[1])))
