"""A sampler of one's own: each trial is a step away from the best so far, and steps become shorter."""

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.trial import TrialState


class Annealing(BaseSampler):
    def __init__(self, first_step: float = 0.5, cooling: float = 0.9, seed: int | None = None) -> None:
        self.first_step, self.cooling = first_step, cooling
        self.random = np.random.default_rng(seed)
        self.fallback = RandomSampler(seed)

    def infer_relative_search_space(self, study, trial):
        space = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: each for name, each in space.items() if isinstance(each, FloatDistribution | IntDistribution)}

    def sample_relative(self, study, trial, search_space):
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not done:
            return {}
        best, width = study.best_trial, self.first_step * self.cooling ** len(done)
        return {name: self.near(best.params[name], each, width) for name, each in search_space.items()}

    def near(self, value, distribution, width):
        low, high = distribution.low, distribution.high
        moved = float(np.clip(value + self.random.normal() * width * (high - low), low, high))
        return round(moved) if isinstance(distribution, IntDistribution) else moved

    def sample_independent(self, study, trial, name, distribution):
        return self.fallback.sample_independent(study, trial, name, distribution)
