"""`aimlhpo results`: rebuild results.csv and best.yml from the storage."""

from __future__ import annotations

from collections.abc import Sequence

from aimlhpo.cli.arguments import add_study_argument, make_parser
from aimlhpo.errors import ExitCode

_EXAMPLES = """\
aimlhpo results runs/digits
aimlhpo results hyperparameters.yml
"""


def run(argv: Sequence[str]) -> int:
    summary = "Rebuild results.csv and best.yml from the storage, which alone is the truth."
    parser = make_parser("results", summary, _EXAMPLES)
    add_study_argument(parser)
    arguments = parser.parse_args(argv)

    from aimlhpo.cli.arguments import load_target
    from aimlhpo.cli.messages import print_results

    config = load_target(arguments.study)
    from aimlhpo.results.table import write_results
    from aimlhpo.storage.study import load_study

    study = load_study(config)
    files = write_results(study, config)
    print(f"{files.rows} finished trials of study {config.optuna.study_name}")
    print_results(study, config, files)
    return ExitCode.DONE
