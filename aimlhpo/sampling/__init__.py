"""The parameters of trials: sampled in the agent's clerk or in a process beside the agent.

sampler       the study's sampler, as the configuration says
  `-- bounded     shows samplers that model a large study a part of it
parameters    one trial's parameters, by the study's sampler, with the trial's own seed
process       the agent's end of a child process: asks it, starts another one where it dies
  `-- child       loads the study by itself, samples, and answers with what is to be written; writes nothing
learning      tells the sampler of trials that have ended
"""
