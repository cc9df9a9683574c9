"""The `cluster` command."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from virtual_cluster import faults, lifecycle
from virtual_cluster.control import Control
from virtual_cluster.errors import ClusterError
from virtual_cluster.layout import Layout, default_directory
from virtual_cluster.options import Options, free_ports
from virtual_cluster.supervisor import Supervisor

Handler = Callable[[argparse.Namespace, Layout], None]


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 0 when done, 1 with one message when not."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments.handler(arguments, Layout(arguments.dir.resolve()))
    except (ClusterError, OSError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted", file=sys.stderr)
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _up(arguments: argparse.Namespace, layout: Layout) -> None:
    options = Options(
        nodes=arguments.nodes,
        cpus=arguments.cpus,
        gpus=arguments.gpus,
        accounting=arguments.accounting,
        ports=free_ports(arguments.nodes),
        max_array_size=arguments.max_array_size,
        requeue=not arguments.no_requeue,
    )
    lifecycle.up(layout, options, arguments.watch_pid, arguments.timeout)
    print(f"{options.nodes} nodes are idle in {layout.root}")
    print(f'use it:   eval "$({shlex.quote(sys.argv[0])} env --dir {layout.root})"; sinfo')
    print(f"stop it:  {shlex.quote(sys.argv[0])} down --dir {layout.root}")


def _down(arguments: argparse.Namespace, layout: Layout) -> None:
    lifecycle.down(layout)


def _env(arguments: argparse.Namespace, layout: Layout) -> None:
    for name, value in Control(layout).environment().items():
        print(f"export {name}={shlex.quote(value)}")


def _kill_controller(arguments: argparse.Namespace, layout: Layout) -> None:
    faults.kill_controller(Control(layout), arguments.now)


def _start_controller(arguments: argparse.Namespace, layout: Layout) -> None:
    faults.start_controller(Control(layout))


def _down_node(arguments: argparse.Namespace, layout: Layout) -> None:
    faults.down_node(Control(layout), arguments.node)


def _kill_node(arguments: argparse.Namespace, layout: Layout) -> None:
    faults.kill_node(Control(layout), arguments.node)


def _resume_node(arguments: argparse.Namespace, layout: Layout) -> None:
    faults.resume_node(Control(layout), arguments.node)


def _reset(arguments: argparse.Namespace, layout: Layout) -> None:
    faults.reset(Control(layout))


def _supervise(arguments: argparse.Namespace, layout: Layout) -> None:
    layout.supervisor.write_text(str(os.getpid()))
    Supervisor(layout, arguments.watch_pid).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_up(verbs)
    _add(verbs, "down", _down, "end every process of the cluster and remove its directory")
    _add(verbs, "env", _env, "print the shell lines that point SLURM's commands at the cluster")
    kill = _add(verbs, "kill-controller", _kill_controller, "SIGKILL slurmctld, once it has saved its jobs")
    kill.add_argument("--now", action="store_true", help="do not wait: the jobs of the last seconds are forgotten")
    _add(verbs, "start-controller", _start_controller, "start slurmctld again, with the jobs that it knew")
    for name, handler, text in (
        ("down-node", _down_node, "set a node DOWN: its jobs are requeued or fail"),
        ("kill-node", _kill_node, "SIGKILL a node's slurmd and all its jobs, as a power cut would"),
        ("resume-node", _resume_node, "bring a node back from either"),
    ):
        _add(verbs, name, handler, text).add_argument("node")
    _add(verbs, "reset", _reset, "end all jobs, start what was killed, resume every node")
    # What `up` starts in the background; no help text, because nobody types it.
    supervise = verbs.add_parser("supervise")
    _common(supervise, _supervise)
    _watch(supervise)
    return parser


def _add_up(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = _add(verbs, "up", _up, "start a cluster and wait until its nodes are idle")
    up.add_argument("--nodes", type=_positive, default=4)
    up.add_argument("--cpus", type=_positive, default=16, help="of each node")
    up.add_argument("--gpus", type=int, default=2, help="of each node: pretended ones, of type v100")
    up.add_argument("--accounting", action="store_true", help="with slurmdbd and its own MariaDB, for sacct")
    up.add_argument("--max-array-size", type=_positive, default=1001, help="SLURM's MaxArraySize")
    up.add_argument("--no-requeue", action="store_true", help="a cluster that forbids it, as some do")
    up.add_argument("--timeout", type=float, default=90, help="seconds until all must be ready (default: 90)")
    _watch(up)


def _watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch-pid", type=_positive, metavar="PID", help="go down when this process ends")


def _add(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, handler: Handler, text: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    _common(parser, handler)
    return parser


def _common(parser: argparse.ArgumentParser, handler: Handler) -> None:
    parser.add_argument(
        "--dir",
        type=Path,
        default=default_directory(),
        help="where all of the cluster's files lie (default: %(default)s)",
    )
    parser.set_defaults(handler=handler)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value
