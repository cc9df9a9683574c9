"""sbatch options by any of their names, brought to one form."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.config import sbatch_options
from aimlhpo.config.sbatch_options import OPTIONS, SHORT, normalise


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"A": "p", "t": "1:0", "n": 8, "c": 4}, {"account": "p", "time": "1:0", "ntasks": "8", "cpus-per-task": "4"}),
        ({"gres": "gpu:v100:1", "mem": "128G"}, {"gres": "gpu:v100:1", "mem": "128G"}),
        ({"exclusive": None, "hold": True, "O": None}, {"exclusive": None, "hold": None, "overcommit": None}),
        ({"exclusive": "user", "nice": 100}, {"exclusive": "user", "nice": "100"}),
        ({"exclusive": False, "requeue": False, "mem": False}, {}),
        ({"mail-type": ["END", "FAIL"]}, {"mail-type": ["END", "FAIL"]}),
        ({"kill-on-invalid-dep": True}, {"kill-on-invalid-dep": "yes"}),
        ({"--container-image": "a.sqsh", "--time": 5}, {"container-image": "a.sqsh", "time": "5"}),
        ({"J": "a b; $(touch x) `y` 'z' \"w\""}, {"job-name": "a b; $(touch x) `y` 'z' \"w\""}),
    ],
)  # fmt: skip
def test_options(given: dict[str, Any], meant: dict[str, Any]) -> None:
    assert normalise(given) == (meant, [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tiem": 5}, "did you mean: time"),
        ({"cpus_per_task": 5}, "did you mean: cpus-per-task"),
        ({"Z": 5}, "sbatch has no such option"),
        ({"t": 5, "time": 6}, "is the same option as t"),
        ({"J": "a\nb"}, "slurm: batch: J: holds a line break"),
        ({"J": "a\x1b[2J"}, "control character"),
        ({"mail-type": ["END", "a\nb"]}, "control character"),
        ({"J\nrm": "x"}, "control character"),
        ({"t": None}, "has no value"),
        ({"t": True}, "has no value"),
        ({"t": ""}, "is empty"),
        ({"t": {"a": 1}}, "is not a value"),
        ({"t": [[1]]}, "is not a value"),
        ({"mail-type": []}, "empty list"),
        ({"hold": "yes please"}, "takes no value"),
    ],
)
def test_mistakes(given: dict[Any, Any], words: str) -> None:
    options, problems = normalise(given)
    assert options == {}
    assert words in str(problems[0])
    assert "\x1b" not in str(problems[0])


def test_every_short_letter_has_a_long_name_that_exists() -> None:
    assert set(SHORT.values()) <= OPTIONS


@pytest.mark.skipif(shutil.which("man") is None or shutil.which("sbatch") is None, reason="needs sbatch's manual")
def test_every_option_of_the_manual_is_known() -> None:
    manual = subprocess.run(
        ["man", "sbatch"], capture_output=True, text=True, env={"MANWIDTH": "200", "PATH": "/usr/bin:/bin"}
    )
    lines = [line.strip() for line in manual.stdout.splitlines() if line.startswith("       -")]
    names = {line.split("--")[1].split("=")[0].split("[")[0].split()[0] for line in lines if "--" in line}
    assert names - OPTIONS == set()


def test_a_new_option_is_a_name_in_one_list(tmp_path: Path) -> None:
    """In a copy of the module: options that SLURM does not have yet cannot be told apart from mistakes otherwise."""
    source = Path(sbatch_options.__file__).read_text()
    copy = tmp_path / "options_with_one_more.py"
    copy.write_text(
        source.replace('WITH_VALUE = frozenset([\n    "', 'WITH_VALUE = frozenset([\n    "brand-new", "', 1)
    )
    spec = spec_from_file_location("options_with_one_more", copy)
    assert spec is not None
    assert spec.loader is not None
    changed = module_from_spec(spec)
    spec.loader.exec_module(changed)
    assert normalise({"brand-new": 5})[1]
    assert changed.normalise({"brand-new": 5}) == ({"brand-new": "5"}, [])
    assert changed.normalise({"brand-nwe": 5})[1][0].suggestion == "brand-new"
