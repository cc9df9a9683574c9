"""What user code meets: the class that it subclasses, the trial that it is given, and what it may return.

Runs in the processes that train, and imports none of the other rooms and no framework; Optuna is loaded only where the
objective asks for something that is made of its classes.

    base       BaseObjective, loading `Objective` from the user's file, from what `train` returned to the numbers that
               go into the study, and what a trial ran on: Python, packages, and the objective's text
    trial      the trial that `train` gets: parameters, reports, pruning, checkpoints; in whichever process it is used
    study      what can be read of the study, and the trial's attributes as callbacks of other packages set them
    script     `aimlhpo.report` and `aimlhpo.checkpoint_dir`, for scripts that are run by `command`
    messages   what an agent and its workers say to each other over a pipe, a program as the objective included
"""
