"""A whole SLURM on one machine, for tests, demonstrations and developers. Standard library only."""
