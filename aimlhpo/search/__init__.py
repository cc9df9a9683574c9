"""How a study is searched: samplers and pruners, the trials that it starts with, and the rules that end it early.

It may import errors, paths, processes, objective, space, config and storage. Most of it runs in an agent's storage
thread; sampling that takes long runs in a child process of the agent.

In reading order: `registry` and `building` (from a section of the configuration to a sampler or a pruner), `bounded`
(the study's sampler, and how much of a large study it sees), `grid`, `asha`; `sampling` and `sampling_child` (the
parameters of a trial, and the process that samples them); `warm_start` and `trial_converter` (the trials that a study
starts with); `stopping_rules` and `stopping`.
"""
