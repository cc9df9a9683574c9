"""Sampling, in the agent's clerk or in a process beside the agent.

SamplingProcess   the agent's end: asks a child process, starts another one where it dies
  `-- child       loads the study by itself, samples, and answers with what is to be written; writes nothing
Sampling          one trial's parameters, by the study's sampler, with the trial's own seed
"""
