"""Sends every trial to MLflow and TensorBoard, from what the storage holds and away from all training.

agent (one of a study's, by election)   tracker     starts the child, passes on its lines, bounds its end
  `-- child process                     sync        reads the storage, sends each target what it lacks
        |-- mlflow                      a run for the study, a nested run for each trial
        `-- tensorboard                 a directory of event files for each trial

A target itself knows what it has, so that whoever comes next completes what an outage or a dead agent has left out.
`run` has what a target is told, and the interface of targets; `tracker` has the registry of them. A new tracker is one
file with a `Target`, one line in `TRACKERS`, and its section under `log` in the configuration.

This room may import the storage, the ledger's election and the results, and nothing that runs trials.
"""
