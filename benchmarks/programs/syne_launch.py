"""Syne Tune's local backend, as its README's launching script; it looks for news every 0.1 s, not every 5 s."""

from pathlib import Path

import work
from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import choice, finrange, lograndint, loguniform, randint, uniform
from syne_tune.optimizer.baselines import ASHA, TPE

SPEC = work.SPEC
SPACE = {
    "x0": uniform(0.0, 1.0),
    "x1": uniform(0.0, 1.0),
    "rate": loguniform(1e-5, 1e-1),
    "layers": randint(1, 8),
    "kind": choice(["a", "b", "c"]),
}
DIGITS = {
    "learning_rate": loguniform(1e-4, 3e-2),
    "weight_decay": loguniform(1e-6, 1e-2),
    "batch_size": choice([16, 32, 64, 128]),
    "activation": choice(["relu", "gelu", "tanh"]),
    "dropout": finrange(0.0, 0.5, 6),
    "num_dense": randint(1, 3),
    "dense_width": lograndint(16, 128),
}


def scheduler():
    space = DIGITS if "digits" in SPEC else SPACE
    if "digits" in SPEC or SPEC.get("pruner") == "asha":
        # A trial that reaches max_t is ended before it can take notes.
        most = SPEC["epochs"] + 1 if "digits" in SPEC else SPEC["steps"] + 1
        return ASHA(space, metric="val_loss", time_attr="epoch", max_t=most, random_seed=SPEC["seed"])
    return TPE(space, metric="val_loss", random_seed=SPEC["seed"])


def main():
    tuner = Tuner(
        trial_backend=LocalBackend(entry_point=str(Path(__file__).with_name("syne_trial.py"))),
        scheduler=scheduler(),
        stop_criterion=StoppingCriterion(max_num_trials_finished=SPEC["trials"]),
        n_workers=SPEC["workers"],
        sleep_time=0.1,
    )
    tuner.run()


if __name__ == "__main__":
    main()
