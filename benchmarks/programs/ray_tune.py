"""Ray Tune on this machine, as its documentation's first example; a slot is a CPU that Ray is told of."""

import math

import ray
import work
from ray import tune
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

SPEC = work.SPEC
SPACE = {
    "x0": tune.uniform(0.0, 1.0),
    "x1": tune.uniform(0.0, 1.0),
    "rate": tune.loguniform(1e-5, 1e-1),
    "layers": tune.randint(1, 9),
    "kind": tune.choice(["a", "b", "c"]),
}
DIGITS = {
    "learning_rate": tune.loguniform(1e-4, 3e-2),
    "weight_decay": tune.loguniform(1e-6, 1e-2),
    "batch_size": tune.choice([16, 32, 64, 128]),
    "activation": tune.choice(["relu", "gelu", "tanh"]),
    "dropout": tune.quniform(0.0, 0.5, 0.1),
    "num_dense": tune.randint(1, 4),
    "dense_width": tune.lograndint(16, 129),
}


def train(config):
    def report(value, step):
        tune.report({"val_loss": value})

    if "digits" in work.SPEC:
        work.train_digits(work.digits_conf(config), report)
    else:
        value = work.run(config, report)
        if not work.SPEC.get("steps"):
            report(value, 0)


def scheduler():
    if SPEC.get("pruner") == "asha":
        return ASHAScheduler(max_t=SPEC["steps"] + 1)  # a trial that reaches max_t is ended before it can take notes
    return MedianStoppingRule() if SPEC.get("pruner") == "median" else None


def main():
    ray.init(num_cpus=SPEC["workers"], include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space=DIGITS if "digits" in SPEC else SPACE,
        tune_config=tune.TuneConfig(
            metric="val_loss", mode="min", num_samples=math.ceil(SPEC["trials"]), scheduler=scheduler()
        ),
        run_config=tune.RunConfig(storage_path=SPEC["folder"], verbose=0),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
