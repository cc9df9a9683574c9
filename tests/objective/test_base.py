from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from aimlhpo import BaseObjective
from aimlhpo.errors import ObjectiveError
from aimlhpo.objective.base import BadValue, MissingMetric, load_objective, make_objective

CONFIG = {"lr": 0.1, "optuna": {"parameters": {}}}


class Echo(BaseObjective):
    def train(self, trial: Any, conf: dict[str, Any]) -> Any:
        return {"val_loss": conf["lr"], "accuracy": 0.5}


def write(folder: Path, text: str, name: str = "objective.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def proxy(**extra: Any) -> SimpleNamespace:
    return SimpleNamespace(number=3, **extra)


class TestConstruction:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("study", CONFIG, "loss", "cuda:0"), {}),
            ((CONFIG, "loss", "cuda:0"), {"study": "study"}),
            (("study", CONFIG), {"metric": "loss", "device": "cuda:0"}),
            ((), {"study": "study", "config": CONFIG, "metric": "loss", "device": "cuda:0"}),
        ],
    )
    def test_with_and_without_the_study_in_front(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if arguments and arguments[0] is CONFIG:
            objective = Echo(*arguments)
            assert objective.study is None
        else:
            objective = Echo(*arguments, **named)
            assert objective.study == "study"
        assert (objective.config, objective.metric, objective.device) == (CONFIG, "loss", "cuda:0")

    def test_the_defaults(self) -> None:
        assert (Echo(CONFIG).metric, Echo(CONFIG).device) == ("val_loss", "cpu")
        assert Echo(None, CONFIG).config == CONFIG

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ((), {}),
            (("study",), {}),
            ((CONFIG,), {"gpu": 1}),
            ((CONFIG,), {"config": CONFIG}),
            ((1, 2, 3, 4, 5), {}),
        ],
    )
    def test_wrong_arguments_are_refused(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        with pytest.raises(TypeError, match="BaseObjective"):
            Echo(*arguments, **named)


class TestCall:
    def test_the_proxy_trials_configuration_is_trained_with_in_place(self) -> None:
        class Changes(Echo):
            def train(self, trial: Any, conf: dict[str, Any]) -> Any:
                conf["hidden"] = [8, 8]
                return super().train(trial, conf)

        conf = {"lr": 0.7}
        assert Changes(CONFIG)(proxy(conf=conf)) == 0.7
        assert conf == {"lr": 0.7, "hidden": [8, 8]}

    def test_the_results_are_handed_to_the_trial(self) -> None:
        seen: list[Any] = []
        Echo(CONFIG)(proxy(conf={"lr": 1}, record_results=seen.append))
        assert seen == [{"val_loss": 1, "accuracy": 0.5}]

    def test_several_metrics(self) -> None:
        objective = Echo(None, CONFIG, ["accuracy", "val_loss"])
        assert objective(proxy(conf={"lr": 2})) == [0.5, 2.0]

    def test_save_can_be_overridden(self) -> None:
        class Saves(Echo):
            def save(self, trial: Any, results: Any) -> float:
                return float(results["accuracy"])

        assert Saves(CONFIG)(proxy(conf={"lr": 2})) == 0.5

    def test_a_missing_metric(self) -> None:
        with pytest.raises(MissingMetric, match="accuracy, val_loss"):
            Echo(None, CONFIG, "f1")(proxy(conf={"lr": 2}))

    def test_a_bad_value(self) -> None:
        with pytest.raises(BadValue, match="None"):
            Echo(CONFIG)(proxy(conf={"lr": None}))

    def test_it_runs_outside_of_a_study(self) -> None:
        objective = Echo(CONFIG)
        assert objective(optuna.trial.FixedTrial({})) == 0.1
        directory = objective.checkpoint_dir(optuna.trial.FixedTrial({}))
        assert directory.is_dir()
        directory.rmdir()


class TestCheckpointDir:
    def test_it_is_made_when_asked_for(self, tmp_path: Path) -> None:
        trial = proxy(checkpoint_dir=tmp_path / "checkpoints" / "trial-00003")
        assert Echo(CONFIG).checkpoint_dir(trial) == trial.checkpoint_dir
        assert trial.checkpoint_dir.is_dir()


class TestLoading:
    @pytest.fixture(autouse=True)
    def process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What loading changes in the process is taken back."""
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "argv", list(sys.argv))

    def test_helper_modules_beside_the_file_import(self, tmp_path: Path) -> None:
        write(tmp_path, "VALUE = 5", "helper_of_this_test.py")
        path = write(
            tmp_path,
            """
            from helper_of_this_test import VALUE
            from aimlhpo import BaseObjective
            class Objective(BaseObjective):
                def train(self, trial, conf):
                    import helper_of_this_test as late
                    return {"val_loss": VALUE + late.VALUE}
            """,
        )
        objective = make_objective(load_objective(path), None, CONFIG, "val_loss", "cpu")
        assert objective(proxy(conf={})) == 10

    def test_the_file_is_a_module_of_its_own_name(self, tmp_path: Path) -> None:
        text = """
            import sys
            from aimlhpo import BaseObjective
            ARGUMENTS = list(sys.argv)
            class Objective(BaseObjective):
                def train(self, trial, conf): ...
            """
        path = write(tmp_path, text, "training.py")
        module = sys.modules[load_objective(path).__module__]
        assert (module.__name__, module.ARGUMENTS) == ("training", [str(path)])
        read = "import pickle, sys; print(pickle.load(sys.stdin.buffer).__module__)"
        pickled = pickle.dumps(module.Objective)
        done = subprocess.run(
            [sys.executable, "-c", read], input=pickled, cwd=tmp_path, capture_output=True, check=True
        )
        assert done.stdout == b"training\n"

    def test_two_files_of_one_name_stay_apart(self, tmp_path: Path) -> None:
        text = "from aimlhpo import BaseObjective\nclass Objective(BaseObjective):\n    train = lambda *_: {}\n"
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            write(tmp_path / name, f"{text}    NAME = {name!r}\n")
        first, second = (load_objective(tmp_path / name / "objective.py") for name in ("a", "b"))
        assert (first.NAME, second.NAME) == ("a", "b")  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("x = 1", "class Objective"),
            ("class Objective: pass", "not a subclass"),
            ("Objective = 3", "not a subclass"),
            ("from aimlhpo import BaseObjective\nclass Objective(BaseObjective): pass", "def train"),
        ],
    )
    def test_what_is_missing_is_named(self, tmp_path: Path, text: str, words: str) -> None:
        path = write(tmp_path, text)
        with pytest.raises(ObjectiveError, match=words) as caught:
            load_objective(path)
        assert str(path) in str(caught.value)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ObjectiveError, match="no such file"):
            load_objective(tmp_path / "objective.py")

    def test_an_import_error_shows_the_files_own_traceback_last(self, tmp_path: Path) -> None:
        write(tmp_path, "def go():\n    import there_is_no_such_module\n", "helper_that_fails.py")
        path = write(tmp_path, "import helper_that_fails\nhelper_that_fails.go()\n")
        with pytest.raises(ObjectiveError) as caught:
            load_objective(path)
        lines = str(caught.value).splitlines()
        assert lines[-1] == "ModuleNotFoundError: No module named 'there_is_no_such_module'"
        assert "helper_that_fails.go()" in str(caught.value)
        assert "importlib" not in str(caught.value)
        assert "base_objective.py" not in str(caught.value)

    def test_a_syntax_error_shows_its_line(self, tmp_path: Path) -> None:
        with pytest.raises(ObjectiveError, match="def train") as caught:
            load_objective(write(tmp_path, "def train(:\n"))
        assert str(caught.value).splitlines()[-1].startswith("SyntaxError")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("x = 1\nraise SystemExit(3)", "line 2 exits with code 3 when the file is imported"),
            ("import sys\nsys.exit()", "line 2 exits with code 0"),
            ("import sys\nsys.exit('no data')", "line 2 exits with 'no data'"),
        ],
    )
    def test_a_script_that_exits_is_told_without_a_traceback(self, tmp_path: Path, text: str, words: str) -> None:
        with pytest.raises(ObjectiveError, match=words) as caught:
            load_objective(write(tmp_path, text))
        assert "Traceback" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("random.py", r"another module named 'random' \(.*/random.py\)"),
            ("sys.py", r"another module named 'sys' \(built-in\)"),
            ("pytest.py", "another module named 'pytest'"),
            ("objective.v2.py", "Rename it, for example to objective_v2.py"),
            ("__main__.py", "another module named '__main__'"),
            ("objective.txt", "has to end with .py"),
        ],
    )
    def test_a_name_that_other_processes_would_not_find_is_refused(self, tmp_path: Path, name: str, words: str) -> None:
        with pytest.raises(ObjectiveError, match=words) as caught:
            load_objective(write(tmp_path, "raise RuntimeError('it was run')", name))
        assert str(tmp_path / name) in str(caught.value)

    def test_a_package_beside_it_of_the_same_name_is_told_of(self, tmp_path: Path) -> None:
        (tmp_path / "objective").mkdir()
        package = write(tmp_path / "objective", "", "__init__.py")
        with pytest.raises(ObjectiveError, match=f"another module named 'objective'.*{package}"):
            load_objective(write(tmp_path, ""))

    def test_importing_loads_no_framework(self) -> None:
        code = "import sys, aimlhpo.objective.base; print({'optuna', 'numpy', 'torch'} & set(sys.modules))"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == "set()"


class TestMaking:
    @pytest.mark.parametrize(
        ("signature", "call"),
        [
            ("self, study, config, metric='val_loss', device='cpu'", "study, config, metric, device"),
            ("self, config, metric='val_loss'", "config, metric"),
            ("self, config, metric='val_loss', device='cpu'", "config, metric, device"),
            ("self, device, config, metric", "config=config, metric=metric, device=device"),
            ("self, **kwargs", "**kwargs"),
            ("self, *, config, metric, extra=3", "config, metric"),
        ],
    )
    def test_arguments_go_by_name(self, tmp_path: Path, signature: str, call: str) -> None:
        path = write(
            tmp_path,
            f"""
            from aimlhpo import BaseObjective
            class Objective(BaseObjective):
                def __init__({signature}):
                    BaseObjective.__init__(self, {call})
                def train(self, trial, conf):
                    return {{"loss": 1}}
            """,
        )
        objective = make_objective(load_objective(path), "study", CONFIG, "loss", "cuda:0")
        assert (objective.config, objective.metric) == (CONFIG, "loss")
        assert objective.device == ("cuda:0" if "device" in call or "kwargs" in call else "cpu")

    def test_without_an_init_of_its_own(self) -> None:
        objective = make_objective(Echo, "study", CONFIG, ["a", "b"], "cuda:0")
        assert (objective.study, objective.metric, objective.device) == ("study", ["a", "b"], "cuda:0")

    def test_an_argument_that_is_not_given_is_named(self) -> None:
        class Asks(Echo):
            def __init__(self, config: Any, dataset: str) -> None: ...

        with pytest.raises(ObjectiveError, match="dataset.*study, config, metric, device"):
            make_objective(Asks, None, CONFIG, "loss", "cpu")

    def test_a_failing_init_shows_its_traceback(self, tmp_path: Path) -> None:
        path = write(
            tmp_path,
            """
            from aimlhpo import BaseObjective
            class Objective(BaseObjective):
                def __init__(self, config):
                    config["data"]["path"]
                def train(self, trial, conf): ...
            """,
        )
        with pytest.raises(ObjectiveError) as caught:
            make_objective(load_objective(path), None, CONFIG, "loss", "cpu")
        assert str(caught.value).splitlines()[-1] == "KeyError: 'data'"
        assert 'config["data"]["path"]' in str(caught.value)

    def test_an_init_that_forgets_super_is_told(self) -> None:
        class Forgets(Echo):
            def __init__(self, config: Any) -> None:
                pass

        with pytest.raises(ObjectiveError, match="super"):
            make_objective(Forgets, None, CONFIG, "loss", "cpu")
