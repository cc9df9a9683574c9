"""The small real trainings whose learning curves the benchmark of the search replays.

Each is a search space and a function from a configuration and a seed to the validation error after each epoch (or
round). `python -m benchmarks.search.record` runs them. A parameter with `when` is there only where another one has one
of the values that are listed.
"""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from sklearn import datasets

from benchmarks.search.task import active

Values = Mapping[str, Any]
Data = tuple[np.ndarray[Any, Any], ...]  # training inputs and targets, validation inputs and targets


def real(name: str, low: float, high: float, *, log: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "float", "low": low, "high": high, "log": log, **more}


def whole(name: str, low: int, high: int, *, log: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "int", "low": low, "high": high, "log": log, **more}


def choice(name: str, *choices: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "categorical", "choices": list(choices), **more}


@dataclass(frozen=True)
class Training:
    """A search space, and what trains one configuration: (values, seed) -> error after each epoch."""

    space: Sequence[dict[str, Any]]
    train: Callable[[Values, int], list[float]]


# --- data that ships with scikit-learn or Python ---


@cache
def digits() -> Data:
    inputs, targets = datasets.load_digits(return_X_y=True)
    return _split(inputs / 16.0 - 0.3, targets, 600, 600)


@cache
def diabetes() -> Data:
    inputs, targets = datasets.load_diabetes(return_X_y=True)
    return _split(inputs * 20, (targets - targets.mean()) / targets.std(), 300, 142)


@cache
def cancer() -> Data:
    inputs, targets = datasets.load_breast_cancer(return_X_y=True)
    return _split((inputs - inputs.mean(0)) / inputs.std(0), targets, 300, 269)


@cache
def friedman() -> Data:
    inputs, targets = datasets.make_friedman1(900, n_features=10, noise=1.0, random_state=0)
    return _split(2 * inputs - 1, (targets - targets.mean()) / targets.std(), 500, 400)


@cache
def characters() -> Data:
    """The eight characters before each one of Python's own documentation, and that one."""
    text = "".join(pydoc_data.topics.topics[topic] for topic in sorted(pydoc_data.topics.topics)[:40])
    known = sorted(set(text))
    codes = np.array([known.index(letter) for letter in text[:12_000]])
    windows = np.lib.stride_tricks.sliding_window_view(codes, 9)
    return _split(windows[:, :8], windows[:, 8], 4000, 2000)


def _split(inputs: Any, targets: Any, training: int, validation: int) -> Data:
    order = np.random.default_rng(0).permutation(len(inputs))
    first, second = order[:training], order[training : training + validation]
    return inputs[first], targets[first], inputs[second], targets[second]


# --- networks ---


def _fit(
    network: Any, data: Data, values: Values, seed: int, epochs: int, *, regression: bool = False, whole: bool = False
) -> list[float]:
    """Train a network of PyTorch; the validation loss after each epoch. `whole`: the inputs are whole numbers."""
    import torch
    from torch.nn import functional

    kind = torch.long if whole else torch.float32
    x, y, x_val, y_val = (torch.as_tensor(part) for part in data)
    x, x_val = x.to(kind), x_val.to(kind)
    y, y_val = (y.float(), y_val.float()) if regression else (y, y_val)
    loss_of = (lambda out, goal: functional.mse_loss(out[:, 0], goal)) if regression else functional.cross_entropy
    rate, decay = values["learning_rate"], values.get("weight_decay", 0.0)
    optimizers: dict[str, Callable[[], Any]] = {
        "sgd": lambda: torch.optim.SGD(
            network.parameters(), rate, momentum=values.get("momentum", 0.9), weight_decay=decay, fused=True
        ),
        "adam": lambda: torch.optim.AdamW(
            network.parameters(), rate, (values.get("beta1", 0.9), 0.999), weight_decay=decay, fused=True
        ),
        "rmsprop": lambda: torch.optim.RMSprop(network.parameters(), rate, weight_decay=decay),
    }
    optimizer = optimizers[values.get("optimizer", "adam")]()
    scheduler = None
    if values.get("schedule", "constant") == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    elif values.get("schedule") == "step":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, max(1, epochs // 3), 0.3)
    curve = []
    for _ in range(epochs):
        network.train()
        for batch in torch.randperm(len(x)).split(values["batch_size"]):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(network(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
        if scheduler is not None:
            scheduler.step()
        network.eval()
        with torch.no_grad():
            curve.append(float(loss_of(network(x_val), y_val)))
    return curve


def _activation(name: str) -> Any:
    from torch import nn

    return {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}[name]()


def _mlp(inputs: int, outputs: int, widths: Sequence[int], activation: str, dropout: float, normalize: bool) -> Any:
    from torch import nn

    layers: list[Any] = []
    for width in widths:
        layers += [nn.Linear(inputs, width)]
        layers += [nn.BatchNorm1d(width)] if normalize else []
        layers += [_activation(activation)] + ([nn.Dropout(dropout)] if dropout else [])
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _seeded(seed: int) -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)


def digits_mlp(values: Values, seed: int) -> list[float]:
    _seeded(seed)
    widths = [values["width"]] * values["layers"]
    network = _mlp(64, 10, widths, values["activation"], values["dropout"], False)
    return _fit(network, digits(), values, seed, 27)


def digits_choices(values: Values, seed: int) -> list[float]:
    _seeded(seed)
    widths = [values["width"]] * values["layers"]
    network = _mlp(64, 10, widths, values["activation"], values["dropout"], values["normalize"])
    return _fit(network, digits(), values, seed, 18)


def digits_conv(values: Values, seed: int) -> list[float]:
    from torch import nn

    _seeded(seed)
    wide, kernel = values["channels"], values["kernel"]
    network = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, wide, kernel, padding=kernel // 2),
        _activation(values["activation"]),
        nn.MaxPool2d(2),
        nn.Conv2d(wide, 2 * wide, 3, padding=1),
        _activation(values["activation"]),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(values["dropout"]),
        nn.Linear(8 * wide, 10),
    )
    return _fit(network, digits(), values, seed, 16)


def digits_cell(values: Values, seed: int) -> list[float]:
    """A cell of four nodes; each of its six edges has one of five operations, as in NAS-Bench-201."""
    import torch
    from torch import nn

    _seeded(seed)
    width = 24

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(64, width), nn.Linear(width, 10)
            self.edges = nn.ModuleDict(
                {name: nn.Linear(width, width) for name in values if values[name] not in ("none", "skip")}
            )

        def edge(self, name: str, x: Any) -> Any:
            kind = values[name]
            if kind in ("none", "skip"):
                return x * float(kind == "skip")
            out = self.edges[name](x)
            return {"linear": out, "relu": torch.relu(out), "tanh": torch.tanh(out)}[kind]

        def forward(self, x: Any) -> Any:
            nodes = [self.stem(x)]
            for to in range(1, 4):
                nodes.append(sum(self.edge(f"edge_{at}{to}", nodes[at]) for at in range(to)))
            return self.head(nodes[-1])

    return _fit(Cell(), digits(), {"learning_rate": 3e-3, "batch_size": 64}, seed, 16)


def diabetes_mlp(values: Values, seed: int) -> list[float]:
    _seeded(seed)
    widths = [values["width"]] * values["layers"]
    network = _mlp(10, 1, widths, values["activation"], values["dropout"], False)
    return _fit(network, diabetes(), values, seed, 27, regression=True)


def friedman_layers(values: Values, seed: int) -> list[float]:
    """A width for each layer that there is, and arguments for the optimizer that is used."""
    _seeded(seed)
    widths = [values[f"width_{layer}"] for layer in range(values["layers"])]
    network = _mlp(10, 1, widths, values["activation"], 0.0, False)
    return _fit(network, friedman(), values, seed, 27, regression=True)


def character_model(values: Values, seed: int) -> list[float]:
    from torch import nn

    _seeded(seed)
    letters = int(max(part.max() for part in characters())) + 1
    size, width = values["embedding"], values["width"]
    network = nn.Sequential(
        nn.Embedding(letters, size),
        nn.Flatten(),
        nn.Dropout(values["dropout"]),
        _mlp(8 * size, letters, [width], values["activation"], values["dropout"], False),
    )
    return _fit(network, characters(), values, seed, 12, whole=True)


# --- boosted trees, and a linear model ---


def friedman_boosting(values: Values, seed: int) -> list[float]:
    import lightgbm

    x, y, x_val, y_val = friedman()
    settings = {**values, "objective": "l2", "seed": seed, "num_threads": 1, "verbosity": -1, "bagging_freq": 1}
    curve: dict[str, dict[str, list[float]]] = {}
    train = lightgbm.Dataset(x, y)
    valid = lightgbm.Dataset(x_val, y_val, reference=train)
    lightgbm.train(settings, train, 81, valid_sets=[valid], callbacks=[lightgbm.record_evaluation(curve)])
    return list(next(iter(curve.values()))["l2"])


def cancer_boosting(values: Values, seed: int) -> list[float]:
    import xgboost

    x, y, x_val, y_val = cancer()
    curve: dict[str, Any] = {}
    settings = {**values, "objective": "binary:logistic", "eval_metric": "logloss", "seed": seed, "nthread": 1}
    if values["booster"] == "gblinear":
        settings["updater"] = "coord_descent"
    valid = xgboost.DMatrix(x_val, y_val)
    train = xgboost.DMatrix(x, y)
    xgboost.train(settings, train, 54, evals=[(valid, "valid")], evals_result=curve, verbose_eval=False)
    return list(curve["valid"]["logloss"])


def digits_linear(values: Values, seed: int) -> list[float]:
    """Linear classification by stochastic gradients; the share of errors."""
    from sklearn.linear_model import SGDClassifier

    x, y, x_val, y_val = digits()
    model = SGDClassifier(**values, random_state=seed)
    random = np.random.default_rng(seed)
    curve = []
    for _ in range(27):
        order = random.permutation(len(x))
        model.partial_fit(x[order], y[order], classes=np.arange(10))
        curve.append(1 - float(model.score(x_val, y_val)))
    return curve


def _networks(*more: dict[str, Any]) -> list[dict[str, Any]]:
    return [real("learning_rate", 1e-4, 1.0, log=True), whole("batch_size", 32, 256, log=True), *more]


_ACTIVATION = choice("activation", "relu", "tanh", "gelu", "sigmoid")
_OPTIMIZER = choice("optimizer", "sgd", "adam", "rmsprop")
_DROPOUT, _DECAY = real("dropout", 0.0, 0.6), real("weight_decay", 1e-6, 0.3, log=True)
_EDGES = [f"edge_{at}{to}" for to in range(1, 4) for at in range(to)]

TRAININGS: dict[str, Training] = {
    "digits-mlp": Training(
        _networks(_OPTIMIZER, _ACTIVATION, _DROPOUT, _DECAY, whole("width", 8, 128, log=True), whole("layers", 1, 3)),
        digits_mlp,
    ),
    "friedman-boosting": Training(
        [
            real("learning_rate", 0.003, 1.0, log=True),
            whole("num_leaves", 2, 64, log=True),
            whole("min_data_in_leaf", 1, 60, log=True),
            real("feature_fraction", 0.2, 1.0),
            real("bagging_fraction", 0.2, 1.0),
            real("lambda_l1", 1e-4, 30.0, log=True),
            real("lambda_l2", 1e-4, 100.0, log=True),
        ],
        friedman_boosting,
    ),
    "digits-linear": Training(
        [
            choice("loss", "hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron"),
            real("alpha", 1e-7, 0.1, log=True),
            choice("penalty", "l2", "l1", "elasticnet"),
            real("l1_ratio", 0.0, 1.0, when={"penalty": ["elasticnet"]}),
            choice("learning_rate", "constant", "invscaling", "optimal", "adaptive"),
            real("eta0", 1e-4, 1.0, log=True, when={"learning_rate": ["constant", "invscaling", "adaptive"]}),
            real("power_t", 0.05, 1.0, when={"learning_rate": ["invscaling"]}),
            choice("average", False, True),
        ],
        digits_linear,
    ),
    "digits-cell": Training([choice(edge, "none", "skip", "linear", "relu", "tanh") for edge in _EDGES], digits_cell),
    "character-model": Training(
        [
            real("learning_rate", 1e-4, 0.3, log=True),
            whole("batch_size", 64, 512, log=True),
            _OPTIMIZER,
            choice("schedule", "constant", "cosine", "step"),
            _ACTIVATION,
            _DROPOUT,
            whole("embedding", 2, 24, log=True),
            whole("width", 8, 96, log=True),
        ],
        character_model,
    ),
    "friedman-layers": Training(
        _networks(
            choice("optimizer", "sgd", "adam"),
            real("momentum", 0.0, 0.99, when={"optimizer": ["sgd"]}),
            real("beta1", 0.0, 0.99, when={"optimizer": ["adam"]}),
            _ACTIVATION,
            whole("layers", 1, 3),
            whole("width_0", 4, 128, log=True),
            whole("width_1", 4, 128, log=True, when={"layers": [2, 3]}),
            whole("width_2", 4, 128, log=True, when={"layers": [3]}),
        ),
        friedman_layers,
    ),
    "digits-choices": Training(
        [
            choice("learning_rate", 1e-4, 1e-3, 1e-2, 0.1, 1.0),
            choice("batch_size", 32, 96, 288),
            _OPTIMIZER,
            choice("schedule", "constant", "cosine", "step"),
            _ACTIVATION,
            choice("dropout", 0.0, 0.2, 0.5),
            choice("normalize", False, True),
            choice("width", 8, 32, 128),
            choice("layers", 1, 2, 3),
        ],
        digits_choices,
    ),
    "diabetes-mlp": Training(
        _networks(
            _OPTIMIZER,
            choice("schedule", "constant", "cosine", "step"),
            _ACTIVATION,
            _DROPOUT,
            _DECAY,
            whole("width", 4, 128, log=True),
            whole("layers", 1, 3),
        ),
        diabetes_mlp,
    ),
    "cancer-boosting": Training(
        [
            choice("booster", "gbtree", "gblinear", "dart"),
            real("learning_rate", 0.003, 1.0, log=True),
            real("reg_lambda", 1e-4, 30.0, log=True),
            real("reg_alpha", 1e-4, 3.0, log=True),
            whole("max_depth", 1, 8, when={"booster": ["gbtree", "dart"]}),
            real("min_child_weight", 0.1, 20.0, log=True, when={"booster": ["gbtree", "dart"]}),
            real("subsample", 0.2, 1.0, when={"booster": ["gbtree", "dart"]}),
            real("rate_drop", 0.0, 0.5, when={"booster": ["dart"]}),
        ],
        cancer_boosting,
    ),
    "digits-conv": Training(
        [
            real("learning_rate", 1e-4, 1.0, log=True),
            whole("batch_size", 32, 256, log=True),
            _OPTIMIZER,
            _ACTIVATION,
            _DROPOUT,
            _DECAY,
            whole("channels", 2, 12, log=True),
            choice("kernel", 3, 5),
        ],
        digits_conv,
    ),
}
"""The trainings by name, in the order in which they are recorded; diversity first."""


def drawn(space: Sequence[dict[str, Any]], random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Random configurations without end, each without the parameters whose condition does not hold."""
    while True:
        values: dict[str, Any] = {}
        for entry in space:
            if not active(entry, values):
                continue
            if entry["type"] == "categorical":
                values[entry["name"]] = entry["choices"][random.integers(len(entry["choices"]))]
                continue
            low, high = entry["low"], entry["high"] + (1 if entry["type"] == "int" else 0)
            if entry.get("log"):
                value = float(np.exp(random.uniform(np.log(low), np.log(high))))
            else:
                value = float(random.uniform(low, high))
            value = min(value, entry["high"])
            values[entry["name"]] = int(value) if entry["type"] == "int" else value
        yield values
