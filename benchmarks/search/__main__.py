"""How fast a search finds a good configuration, in virtual time.

    python -m benchmarks.search --task FILE.npz [FILE.npz ...] --workers 8,64 --seeds 10 --json OUT
    python -m benchmarks.search --tables --json OUT
    python -m benchmarks.search [--full] [--peers] [--docs]

Without `--task`, all tasks that come with the benchmark are searched; with `--docs`, what came of it is written to
docs/search.md. With `--peers`, methods of other packages are run, too: each package is installed into an environment of
its own in .venv-bench/, and one that cannot be is left out. The budget is given in whole trainings or, with `--trials`,
as a number of trials, whatever these cost; what is printed at the end is then the regret and what was trained for it.

OUT is a list with an entry for each task, method and number of workers: "epochs_to_5_percent" and "epochs_to_1_percent"
hold, for each seed, the epochs that all workers together had trained when the best trial so far came within so many
percent of the way from the best value known to the median of random configurations, or null; "regret" holds that part
of the way at the end of the budget, "regret_at_25_percent" and "regret_at_50_percent" after so much of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import optuna
from threadpoolctl import threadpool_limits

from benchmarks.search.figures import Row, by_method, by_trials, means, plot, row_of, table
from benchmarks.search.functions import FUNCTIONS, LYING, WITH_FAILURES
from benchmarks.search.methods import DEFAULT, METHODS, OPTUNA, OPTUNAS_OTHERS
from benchmarks.search.peers import PEERS, installed, versions
from benchmarks.search.simulation import Method, Search, search
from benchmarks.search.tables import TABLES, load_table
from benchmarks.search.task import TASKS, Task, load

DOCS = Path(__file__).parents[2] / "docs"
_PART = r"<!-- {0} -->\n.*?<!-- end of {0} -->"


@cache
def _task(name: str) -> Task:
    if name in TABLES:
        return load_table(name)
    return (FUNCTIONS | LYING | WITH_FAILURES).get(name) or load(Path(name))


def _method(name: str) -> Method:
    return METHODS[name] if name in METHODS else PEERS[name].as_method()


def trainings(workers: int) -> int:
    """The budget in whole trainings, where none is given: 60, and 300 with 64 workers."""
    return max(60, 300 * workers // 64)


def _search(job: tuple[str, str, int, int, int, int | None]) -> Search:
    name, method, *rest = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):  # there is a process for each processor
        return search(_method(method), _task(name), *rest)


def run(
    tasks: Sequence[str],
    methods: Sequence[str],
    workers: Sequence[int],
    seeds: int,
    budget: int | None,
    trials: int | None = None,
) -> Iterator[Row]:
    """Search each task with each method and number of workers, and print each result."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in tasks:
            task = _task(name)
            for count in workers:
                epochs = task.epochs * (trials or budget or trainings(count))
                for method in methods:
                    jobs = [(name, method, count, epochs, seed, trials) for seed in range(seeds)]
                    row = row_of(task.name, method, count, epochs, list(pool.map(_search, jobs)))
                    print(json.dumps({key: row[key] for key in list(row)[:5]}), flush=True)
                    yield row


def _save(rows: Sequence[Row], file: Path | None) -> None:
    if file:
        file.write_text(json.dumps(rows, indent=1))


def _write_docs(rows: Sequence[Row], peers: bool) -> None:
    """Put the tables, and the picture of the recorded tasks, into docs/search.md; or those of the peers alone."""
    page = DOCS / "search.md"
    text = page.read_text()
    recorded, published = ([row for row in rows if (row["task"] in TABLES) == known] for known in (False, True))
    parts: dict[str, str] = {}
    if peers:
        names = [row["method"] for row in rows if row["method"] in PEERS]
        parts["versions"] = ", ".join(versions(names))
        parts |= {"peers on tasks": by_method(recorded)} if recorded else {}
        parts |= {"peers on tables": by_method(published)} if published else {}
    else:
        parts |= {"tasks": table(recorded), "means": means(recorded)} if recorded else {}
        parts |= {"published": f"{table(published)}\n\n{means(published)}"} if published else {}
        if recorded:
            plot(recorded, DOCS / "search.svg")
    for name, part in parts.items():
        whole = f"<!-- {name} -->\n{part}\n<!-- end of {name} -->"
        text = re.sub(_PART.format(name), lambda match, whole=whole: whole, text, flags=re.DOTALL)
    page.write_text(text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [str(file) for file in sorted(TASKS.glob("*.npz"))] + list(FUNCTIONS)
    parser.add_argument(
        "--task", nargs="+", help=f"recorded tasks, or formulas: {', '.join(FUNCTIONS | LYING | WITH_FAILURES)}"
    )
    parser.add_argument("--tables", action="store_true", help="search the published tables, for the sampler alone")
    parser.add_argument("--workers", default="8,64", help="numbers of asynchronous workers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, help="whole trainings; 60, and 300 with 64 workers, where not given")
    parser.add_argument("--trials", type=int, help="end each search after so many trials, whatever they cost")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *PEERS], default=[DEFAULT, OPTUNA])
    parser.add_argument("--json", type=Path, help="where the figures of each seed go")
    parser.add_argument("--full", action="store_true", help="20 seeds, all methods, and one worker, too")
    parser.add_argument("--peers", action="store_true", help="also run the methods of other packages")
    parser.add_argument("--docs", action="store_true", help="write the figures to docs/search.md")
    parser.add_argument("--from", type=Path, nargs="+", dest="saved", help="take figures from files: search nothing")
    options = parser.parse_args(arguments)
    if options.full:
        options.seeds, options.workers, options.methods = 20, "1,8,64", list(METHODS)
    if options.peers:
        options.methods = list(dict.fromkeys([*options.methods, *OPTUNAS_OTHERS, *PEERS]))
    if options.trials and (options.docs or set(options.methods) & set(PEERS)):
        parser.error("--trials goes neither with --docs nor with methods of other packages, which may pause trials")
    counts = [int(count) for count in options.workers.split(",")]
    if options.saved:
        rows = [row for file in options.saved for row in json.loads(file.read_text())]
        _save(rows, options.json)
    else:
        there, missing = installed(name for name in options.methods if name in PEERS)
        for reason in missing:
            print(f"left out: {reason}", file=sys.stderr)
        rows = []
        for row in run(
            options.task or (list(TABLES) if options.tables else known),
            [name for name in options.methods if name in METHODS or name in there],
            counts,
            options.seeds,
            options.budget,
            options.trials,
        ):
            rows.append(row)
            _save(rows, options.json)  # each time, as a whole run may take hours
    if options.docs:
        _write_docs(rows, options.peers)
    if options.trials:
        print(f"\n{by_trials(rows)}")
    elif options.peers:
        print(f"\n{by_method(rows)}")
    elif {DEFAULT, OPTUNA} <= set(options.methods):
        print(f"\n{table(rows)}\n\n{means(rows)}")


if __name__ == "__main__":
    main()
