"""How agents are started: one in the foreground on this machine, or one for each job of a SLURM array."""
