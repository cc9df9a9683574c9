"""How a study is searched: samplers and pruners, the trials that it starts with, and the rules that end it early.

It may import errors, processes, objective, space, config and storage. Most of it runs in an agent's storage
thread; sampling that takes long runs in a child process of the agent.

In reading order: `building` (from a section of the configuration to a sampler or a pruner, and what a study gets that
names none), `bounded` (what samplers see), `rungs` (ASHA), `rung_samplers` and `gaussian_process` (the samplers of a
study that names none); `sampling` (the study's sampler, the parameters of a trial, and the process that samples them);
`queues` (studies whose trials are fixed beforehand: grids and confirmations); `warm_start` (the trials that a study
starts with); `stopping`.
"""
