"""What a bounded view of the study costs in search quality, and what it saves in sampling time.

    python -m benchmarks.bench_bounded [--seeds 5] [--trials 400] [--sees 100] [--sampler TPESampler]

Quality: the best value after `--trials` trials on standard functions, with a view so small that most of them lie out of
sight, beside the same sampler that sees all. The order of two medians says little where it changes from seed to seed:
`wins` counts the seeds in which the bounded one was better. Time: CPU milliseconds for one trial of 5 parameters.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import TrialState, create_trial

from aimlhpo.search.bounded import ALL, bounded
from aimlhpo.search.rung_samplers import RungGPSampler, RungSampler
from benchmarks.big_study import DISTRIBUTIONS, ended_trials

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "TPESampler": lambda seed: TPESampler(seed=seed),
    "GPSampler": lambda seed: GPSampler(seed=seed),
    "RungGPSampler": lambda seed: RungGPSampler(seed=seed),
}


def sphere(x: Sequence[float]) -> float:
    return sum((value - 0.3) ** 2 for value in x)


def rosenbrock(x: Sequence[float]) -> float:
    z = [4 * value - 2 for value in x]
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(z))


def ackley(x: Sequence[float]) -> float:
    z = np.array(x) * 10 - 4
    return float(20 - 20 * np.exp(-0.2 * np.sqrt(np.mean(z**2))) + math.e - np.exp(np.mean(np.cos(2 * math.pi * z))))


def mixed(x: Sequence[float]) -> float:
    """A rate on a log scale, layers, and a kind that shifts the optimum: like a small network's space."""
    rate, layers, kind, dropout = x
    return (math.log10(rate) + 3 - 0.3 * kind) ** 2 + 0.1 * (layers - 3 - kind) ** 2 + (dropout - 0.2 * kind) ** 2


UNIT = FloatDistribution(0, 1)
MIXED = (FloatDistribution(1e-5, 1.0, log=True), IntDistribution(1, 8), CategoricalDistribution((0, 1, 2)), UNIT)
FUNCTIONS: dict[str, tuple[Callable[[Sequence[float]], float], Sequence[BaseDistribution]]] = {
    "sphere 5": (sphere, [UNIT] * 5),
    "rosenbrock 4": (rosenbrock, [UNIT] * 4),
    "ackley 5": (ackley, [UNIT] * 5),
    "mixed 4": (mixed, MIXED),
}


def best_of(name: str, sampler: BaseSampler, trials: int) -> float:
    """The best value that a study of one worker reaches."""
    function, kinds = FUNCTIONS[name]
    space = {f"x{place}": kind for place, kind in enumerate(kinds)}
    study = optuna.create_study(sampler=sampler)
    for _ in range(trials):
        trial = study.ask(space)
        study.tell(trial, function(list(trial.params.values())))
    return study.best_value


def milliseconds(sampler: BaseSampler, trials: int) -> float:
    """CPU time of one trial's sampling in a study of that many finished trials, medians of three.

    For RungSampler they have 27 reports each. RungGPSampler samples every other trial with its processes: the larger
    of both medians counts.
    """
    study = optuna.create_study(sampler=sampler)
    reports = 27 if isinstance(sampler, RungSampler) else 0
    study.add_trials([
        create_trial(
            state=TrialState.COMPLETE, value=trial.value, distributions=DISTRIBUTIONS,
            params={name: kind.to_external_repr(trial.params[name]) for name, kind in DISTRIBUTIONS.items()},
            intermediate_values=dict(enumerate(trial.reports)),
        )
        for trial in ended_trials(trials, reports)
        if trial.state == TrialState.COMPLETE
    ])  # fmt: skip
    _seconds(study)  # after which all trials are read
    times = [_seconds(study) for _ in range(6)]
    return 1000 * max(statistics.median(times[::2]), statistics.median(times[1::2]))


def _seconds(study: optuna.Study) -> float:
    begun = time.process_time()
    trial = study.ask(DISTRIBUTIONS)
    spent = time.process_time() - begun
    study.tell(trial, 1.0)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", choices=SAMPLERS, default="TPESampler")
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--sees", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[0, 1000, 10_000], help="finished trials, for the times"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    make = SAMPLERS[arguments.sampler]
    print(f"{'best value after ' + str(arguments.trials):<24}{'sees all':>12}{f'sees {arguments.sees}':>12}{'wins':>7}")
    for name in arguments.functions:
        pairs = [
            tuple(best_of(name, bounded(make(seed), sees), arguments.trials) for sees in (ALL, arguments.sees))
            for seed in range(arguments.seeds)
        ]
        everything, part = (statistics.median(side) for side in zip(*pairs, strict=True))
        wins = sum(b < a for a, b in pairs)
        print(f"{name:<24}{everything:>12.4g}{part:>12.4g}{wins:>4}/{len(pairs)}", flush=True)
    print(f"\n{'ms to sample a trial at':<24}{'sees all':>12}{'default':>12}")
    for size in arguments.sizes:
        row = [milliseconds(bounded(make(0), sees), size) for sees in (ALL, None)]
        print(f"{size:<24}{row[0]:>12.1f}{row[1]:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
