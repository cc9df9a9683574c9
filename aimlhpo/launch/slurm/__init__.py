"""SLURM: the jobs of a study are one job array, and each element of it runs one agent.

A study's way to its jobs: `plan` makes a `Submission` of the configuration, with the sbatch options that fit; `sbatch`
renders it as the text of the batch script, and submits that, the only step with a side effect.
Afterwards `queue` knows the study's jobs, how they are and how to cancel them, and `job` is what runs in each; `keep`
is how an agent at the end of its job submits those that are missing, and how some are taken away.
`launcher` fulfils the `Launcher` interface with all of these; `program` runs SLURM's own programs for them, and knows a
job's nodes and how processes are started on other ones than the agent's.

Commands run this on a login node, in their main thread; `job`, and `keep` for it, run on a compute node.
"""
