"""`python -m aimlhpo.search FD PARENT`: the process that samples, started by an agent, never by hand.

FD is the number of the inherited connection to the agent, PARENT the agent's process id; the process ends with it.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from aimlhpo.processes import die_with_parent
from aimlhpo.search.sampling import serve

if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
