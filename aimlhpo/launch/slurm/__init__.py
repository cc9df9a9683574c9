"""SLURM: the jobs of a study are one job array, and each element of it runs one agent.

A study's way to its jobs: `plan` makes a `Submission` of the configuration (with `options`, the sbatch options that
fit), `script` renders it as the text of the batch script, and `sbatch` submits that, the only step with a side effect.
Afterwards `queue` knows the study's jobs, how they are and how to cancel them, and `job` is what runs in each; `keep`
is how an agent at the end of its job submits those that are missing, and how some are taken away. `steps` knows the
job's nodes, and how processes are started on other ones than the agent's.
`launcher` fulfils the `Launcher` interface with all of these; `program` runs SLURM's own programs for them.

Commands run this on a login node, in their main thread; `job`, and `keep` for it, run on a compute node.
"""
