"""How a study's agents are started: one in the foreground on this machine, or one in each job of a SLURM array.

`base` has the interface that every launcher fulfils and the registry of launchers; `local` and `slurm/` are the two
that there are. The command line and the checks use the interface alone. A new launcher is one file that fulfils it,
and one line in `base.LAUNCHERS`.

This room may import everything below it, the agent included, but neither `check` nor `cli`. It runs in the main
thread of a command, and in a job until the agent takes over.
"""
