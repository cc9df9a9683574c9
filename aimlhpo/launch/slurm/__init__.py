"""SLURM: a study's jobs are one job array, each element runs one agent.

`plan` turns a config into a `Submission`, `render` turns that into the text of the batch script, `submit`
hands it to sbatch and keeps a record; `queue`, `cancel` and `environment` deal with the jobs afterwards.
"""
