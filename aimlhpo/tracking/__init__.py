"""MLflow and TensorBoard are told of every trial, from what the storage holds and away from all training.

agent (one of a study's, by election)   tracker     starts the child, passes on its lines, bounds its end
  `-- child process                     follower    reads the storage, sends each target what it lacks
        |-- mlflow                      a run for the study, a nested run for each trial
        `-- tensorboard                 a directory of event files for each trial

A target says itself what it has, so that whoever comes next completes what an outage or a dead agent has left out.
"""
