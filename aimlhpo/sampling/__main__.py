"""`python -m aimlhpo.sampling FD PARENT`: started by an agent, never by hand."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from aimlhpo.sampling.child import run
from aimlhpo.worker.lifeline import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    run(Connection(int(sys.argv[1])))
