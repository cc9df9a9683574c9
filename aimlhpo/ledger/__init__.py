"""The single place that decides who runs which trial; the exact budget lives here and nowhere else.

Every decision is made under one lock, from what the storage holds at that moment:

    WAITING --claim--> RUNNING --finish--> COMPLETE, PRUNED or FAIL
       ^                  |
       '-----release------'      (interrupted, or its agent is dead)

A claim writes the owner's token together with the state. Whoever begins, finishes or releases the trial must have that
token, so that an agent that lost its claim while it was stopped or cut off cannot overwrite what others have done
since. `docs/architecture.md` tells of each step, of claims ahead and of promotion.

requests      what an agent asks at once, the answers, and results on their way
ledger        takes the lock, decides on every request of a batch, and writes what follows at once
completion    what a result writes, and how an unfinished trial is given back
changes       what is changed in the configuration of a study that runs
leases        who is alive
checkpoints   the trials' own checkpoint directories

All of this runs in an agent's storage thread, except where a class says otherwise. May import config, space, search,
storage and what is below them.
"""
