"""The single place that decides who runs which trial; the exact budget lives here and nowhere else.

Every decision is taken under one lock, from what the storage holds at that moment:

    WAITING --claim--> RUNNING --finish--> COMPLETE, PRUNED or FAIL
       ^                  |
       '-----release------'      (interrupted, or its agent is dead)

A trial may be claimed ahead, for the slot that is free next: it is RUNNING and counts, but its claim says that it has
not begun. Given back, it is as if it had never been claimed.

With ASHA by promotion a trial may also finish WAITING: it is paused at a rung, and counts. It is claimed again when it
is among the best there; those that never are end PRUNED when nothing else is left to run.

A claim writes the owner's token in the same breath as the state; what begins, finishes or releases the trial checks it,
so that an agent that lost its claim while it was stopped or cut off cannot overwrite what others have done since.

turn          what an agent asks at once, and the answers
ledger        takes the lock, has every request of a turn decided, and writes what follows at once
  |-- draft       the study with all that the turn has decided so far, and what is to be written for it
  |-- budget      how many trials have finished, and how many nobody has claimed yet
  |-- claiming    which trial a slot gets
  |-- finishing   what a result writes, and whether a failed trial is tried again
  |-- releasing   how an unfinished trial is given back
  |-- pausing     what is written for a trial that pauses at a rung
  `-- reaping     which results and trials dead agents have left
"""
