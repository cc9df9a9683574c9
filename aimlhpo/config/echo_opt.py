"""The keys of NCAR's echo-opt, whose hyperparameter files look like ours: what each of them is called here, and how a
file is changed to it: in its data, and in its text, where all else stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from aimlhpo.config.fields import as_list
from aimlhpo.config.yaml import dump_yaml, parse_yaml
from aimlhpo.errors import ConfigError, Problem, key_path, listing, show
from aimlhpo.space.parameter_types import as_number

KeyPath = tuple[str, ...]
_GPU_MODEL = re.compile(r"(?=.*[A-Za-z])(?=.*\d)[\w:-]+")  # v100, gpu:a100, but no mistyped `true`
_PBS_RESOURCE = re.compile(r"(\w+)=(\d+:\d+:\d+|[^:,=\s]+)")
_SBATCH_OPTIONS = {
    "A": "account", "q": "partition", "N": "job-name", "o": "output", "e": "error",
    "walltime": "time", "ncpus": "cpus-per-task", "ngpus": "gpus-per-node", "mem": "mem",
}  # fmt: skip
"""sbatch's names of what qsub is told."""


# --- changes to the entries of a YAML file ---


@dataclass(frozen=True)
class Edit:
    """The entry at `path` becomes `value` at `to`; it goes where `to` is None, and `why` says why it may."""

    path: KeyPath
    to: KeyPath | None = None
    value: Any = None
    why: str = ""

    def __str__(self) -> str:
        if self.to is None:
            return f"{key_path(*self.path)}: left out: {self.why}"
        value = "" if isinstance(self.value, Mapping) else f": {show(self.value)}"
        return f"{key_path(*self.path)}: now {key_path(*self.to)}{value}" + (f": {self.why}" if self.why else "")


def edit_data(data: dict[str, Any], edits: Sequence[Edit]) -> None:
    """Make the changes in the data of a file."""
    for edit in edits:
        above = _section(data, edit.path[:-1])
        above.pop(edit.path[-1], None)
        if edit.to is not None:
            _section(data, edit.to[:-1])[edit.to[-1]] = edit.value


def _section(data: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    for key in path:
        data = data.setdefault(key, {})
    return data


def edit_text(text: str, where: str, edits: Sequence[Edit]) -> str:
    """The text of the file with the changes. A section that goes, or becomes another one, stays as a comment.

    Raises ConfigError where the text cannot be changed without changing more, as with anchors.
    """
    wanted = parse_yaml(text, where)
    edit_data(wanted, edits)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    cuts = [cut for edit in edits for cut in _cuts(text, root, edit)]
    for begin, end, new in sorted(cuts, reverse=True):
        text = text[:begin] + new + text[end:]
    try:
        done = parse_yaml(text, where) == wanted
    except ConfigError:
        done = False
    if not done:
        keys = listing(key_path(*edit.path) for edit in edits)
        raise ConfigError(Problem(where, f"{keys} cannot be changed one by one here", "these changes by hand"))
    return text


def _cuts(text: str, root: Any, edit: Edit) -> list[tuple[int, int, str]]:
    """What takes the place of which parts of the text."""
    above, key, value = _find(root, edit.path)
    begin, end = key.start_mark.index, _end(text, value)
    if isinstance(value, yaml.MappingNode) and not above.flow_style:
        before = "".join(f"# {line}\n" for line in text[begin:end].splitlines())
        section = dump_yaml({edit.to[-1]: edit.value}) if edit.to is not None else ""
        return [(begin, end, f"{section}{before}".rstrip())]
    if edit.to is None:
        return [(*_whole_entry(text, above, key, end), "")]
    new = dump_yaml(edit.value).removesuffix("...\n").strip()
    if edit.to[:-1] == edit.path[:-1]:
        return [(begin, key.end_mark.index, edit.to[-1]), (value.start_mark.index, end, new)]
    _, _, target = _find(root, edit.to[:-1])
    first = target.value[0][0].start_mark
    gap = ", " if target.flow_style else "\n" + " " * first.column
    return [(*_whole_entry(text, above, key, end), ""), (first.index, first.index, f"{edit.to[-1]}: {new}{gap}")]


def _find(root: Any, path: KeyPath) -> tuple[Any, yaml.Node, Any]:
    """The mapping that holds the entry at a path, its key and its value."""
    *above, last = path
    holder = _find(root, tuple(above))[2] if above else root
    key, value = next(pair for pair in holder.value if pair[0].value == last)
    return holder, key, value


def _end(text: str, node: yaml.Node) -> int:
    """Where the text of a node ends; a block's own mark stands behind the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    return len(text[: node.end_mark.index].rstrip())


def _whole_entry(text: str, above: Any, key: yaml.Node, end: int) -> tuple[int, int]:
    """The place of an entry with its comma, or with its line, unless a comment stands there too."""
    begin = key.start_mark.index
    if above.flow_style:
        place = [one for one, _ in above.value].index(key)
        if place + 1 < len(above.value):
            return begin, above.value[place + 1][0].start_mark.index
        return (_end(text, above.value[place - 1][1]) if place else begin), end
    line_end = text.find("\n", end) + 1 or len(text)
    comment = text[end:line_end].lstrip()
    return (begin, line_end - len(comment)) if comment else (text.rfind("\n", 0, begin) + 1, line_end)


# --- what is to be changed ---


def echo_opt_edits(data: Mapping[str, Any]) -> list[Edit]:
    """The changes that make a file of echo-opt's one of ours; none for a file without keys of echo-opt's own."""
    slurm, optuna = (data[key] if isinstance(data.get(key), dict) else {} for key in ("slurm", "optuna"))
    return [*_of_file(data, optuna), *_of_slurm(slurm, optuna), *_of_optuna(optuna)]


def _of_file(data: Mapping[str, Any], optuna: Mapping[str, Any]) -> Iterator[Edit]:
    if "save_path" in data and optuna:
        if "save_path" in optuna:
            yield Edit(("save_path",), why="optuna: save_path is there")
        else:
            yield Edit(("save_path",), ("optuna", "save_path"), data["save_path"])
    pbs = data.get("pbs")
    if pbs is not None and "slurm" in data:
        yield Edit(("pbs",), why="jobs are submitted to SLURM, and there is a section for it")
    elif isinstance(pbs, dict):
        yield Edit(("pbs",), ("slurm",), _as_slurm(pbs, optuna), "jobs are submitted to SLURM; look it through")


def _of_slurm(slurm: Mapping[str, Any], optuna: Mapping[str, Any]) -> Iterator[Edit]:
    """The processes in a job: echo-opt starts so many for each job, or so many for each of the node's GPUs."""
    if "trials_per_job" in slurm:
        yield Edit(("slurm", "trials_per_job"), ("slurm", "workers_per_job"), slurm["trials_per_job"])
    if "gpus_per_node" in slurm:
        yield Edit(("slurm", "gpus_per_node"), why="a job has one worker for each GPU that batch asks for")
    if "tasks_per_worker" in slurm:
        tasks, gpus = slurm["tasks_per_worker"], as_number(slurm.get("gpus_per_node"))
        if not optuna.get("gpu"):
            number = tasks * gpus if gpus and isinstance(tasks, int) else tasks
            yield Edit(("slurm", "tasks_per_worker"), ("slurm", "workers_per_job"), number)
        else:
            yield Edit(("slurm", "tasks_per_worker"), ("slurm", "trials_per_gpu"), tasks)


def _of_optuna(optuna: Mapping[str, Any]) -> Iterator[Edit]:
    if "storage_type" in optuna:
        yield Edit(("optuna", "storage_type"), why="the storage itself says what it is")
    gpu = optuna.get("gpu")
    if isinstance(gpu, str) and as_number(gpu) is None and _GPU_MODEL.fullmatch(gpu):
        yield Edit(("optuna", "gpu"), ("optuna", "gpu"), True)


def _as_slurm(pbs: Mapping[str, Any], optuna: Mapping[str, Any]) -> dict[str, Any]:
    """The section for jobs that PBS has run, with those options that sbatch has, too."""
    options: dict[str, Any] = dict(pbs["batch"]) if isinstance(pbs.get("batch"), dict) else {}
    options.update(_PBS_RESOURCE.findall(" ".join(map(str, as_list(options.pop("l", ""))))))
    batch = {new: options[old] for old, new in _SBATCH_OPTIONS.items() if old in options}
    if "mem" in batch:  # 128GB is sbatch's 128G
        batch["mem"] = str(batch["mem"]).upper().removesuffix("B")
    file = {"slurm": {**pbs, "batch": batch}}
    edit_data(file, list(_of_slurm(pbs, optuna)))
    return file["slurm"]


def pbs_problem(edits: list[Edit]) -> Problem | None:
    """What to say where the file's jobs are for PBS alone."""
    for edit in edits:
        if edit.path == ("pbs",) and edit.to is not None:
            section = dump_yaml({"slurm": edit.value}).rstrip().replace("\n", "\n        ")
            legal = f"this section for a SLURM cluster, or none, and --local in a job of your own\n        {section}"
            return Problem("pbs", "jobs are submitted to SLURM, and not to PBS", legal)
    return None
