"""`aimlhpo agent`: what a SLURM job runs. Not for users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aimlhpo.cli.arguments import make_parser


def run(argv: Sequence[str]) -> int:
    parser = make_parser("agent", "Run one agent of a study; SLURM jobs do this.", "aimlhpo agent runs/digits")
    parser.add_argument("save_path", type=Path, metavar="SAVE_PATH", help="the study's directory")
    arguments = parser.parse_args(argv)

    from aimlhpo.cli.arguments import load_target
    from aimlhpo.cli.live_view import make_view
    from aimlhpo.launch.slurm.job import run_agent

    config = load_target(arguments.save_path)
    return run_agent(config, make_view(config))
