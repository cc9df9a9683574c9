"""Plain Optuna: several processes of `study.optimize` on one storage, as its documentation's "multi-process" says.

The processes are forked after Optuna is imported, so that the imports are done once.
"""

import os
import sys

import optuna
import work

SPEC = work.SPEC
PRUNERS = {
    "median": optuna.pruners.MedianPruner,
    "asha": optuna.pruners.SuccessiveHalvingPruner,
    "none": optuna.pruners.NopPruner,
}
SAMPLERS = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "random": optuna.samplers.RandomSampler,
}


def open_storage(url):
    if url.startswith("journal://"):
        backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal://"))
        return optuna.storages.JournalStorage(backend)
    return url.replace("postgresql://", "postgresql+psycopg://")


def objective(trial):
    def report(value, step):
        trial.report(value, step)
        return trial.should_prune()

    return work.run(work.suggest(trial), report)


def digits(trial):
    def report(value, step):
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    return work.train_digits(work.digits_conf(work.suggest_digits(trial)), report)


def one_worker(index):
    strategies = {}
    if "sampler" in SPEC:
        strategies["sampler"] = SAMPLERS[SPEC["sampler"]](seed=SPEC["seed"] + index)
    if "pruner" in SPEC:
        strategies["pruner"] = PRUNERS[SPEC["pruner"]]()
    study = optuna.load_study(study_name="s", storage=open_storage(SPEC["url"]), **strategies)
    share = SPEC["trials"] // SPEC["workers"]
    study.optimize(digits if "digits" in SPEC else objective, n_trials=share)


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name="s", storage=open_storage(SPEC["url"]), load_if_exists=True)
    for index in range(SPEC["workers"]):
        if os.fork() == 0:
            one_worker(index)
            os._exit(0)
    failures = 0
    for _ in range(SPEC["workers"]):
        failures += os.wait()[1] != 0
    sys.exit(min(failures, 100))


if __name__ == "__main__":
    main()
