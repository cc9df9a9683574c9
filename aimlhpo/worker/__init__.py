"""The processes that train: what runs beside user code, one trial after another, in one slot.

A worker holds no storage and needs no Optuna: all that it knows of the study comes over the pipe from its agent.
It may import `objective` and `config`. User code runs in the main thread of a worker; a thread receives what the agent
sends.

    fork_server     the process that imports the objective once, of which workers are forked
    worker          the main loop: load the objective, run one trial after another, hand the results back
    channel         the worker's connections: to its agent, and to processes that user code starts
    ranks           one trial on several devices: the other ranks, what they are told, and what frameworks are told
    nodes           the ranks, and workers, that run on other nodes of the job
    device_guard    words for a training that asks for more devices than its slot has
    command         the objective of a study with `command`: runs a program for each trial
    process_guard   ends what a worker's programs have started when the worker is gone
    exported        trains again what `aimlhpo export` has written, without agent and study
    devices         GPUs and CPUs, shared out to slots; agents and checks use it, too
"""
