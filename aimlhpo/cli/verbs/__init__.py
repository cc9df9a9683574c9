"""The verbs of the command `aimlhpo`, those that belong together in one file. A verb is a function `run_VERB`, and
`VERBS` in `aimlhpo.cli.arguments` names its module.

    files       init, check, migrate, schema    the two YAML files, before there is a study
    optimize    optimize                        creates or reloads a study, and runs it or submits its jobs
    jobs        submit, stop, change, agent     the jobs of a study that is under way
    status      status, watch                   how a study stands
    results     results, top, report            what it has found
    confirm     confirm, export                 which configuration is really the best, and how to train it elsewhere
    tools       track, dashboard                a study in MLflow, TensorBoard and Optuna's dashboard

A verb's module is loaded only after its command line and its configuration were read without a mistake, so it imports
all that it needs at its top, and help and mistakes still appear at once.
"""
