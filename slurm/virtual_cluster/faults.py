"""Breaking a cluster on purpose, and mending it."""

from __future__ import annotations

import contextlib
import secrets

from virtual_cluster import processes
from virtual_cluster.control import Control, wait_until
from virtual_cluster.errors import ClusterError
from virtual_cluster.lifecycle import tails

USABLE = ("idle", "mixed", "allocated")


def kill_controller(control: Control, at_once: bool) -> None:
    """SIGKILL slurmctld, once it has saved its jobs; `at_once` it forgets what came in the last seconds.

    A forgotten job may run on, and its id is given to the next one: SLURM drains the node where they meet.
    """
    if not at_once:
        _wait_for_save(control)
    control.kill("slurmctld")


def _wait_for_save(control: Control) -> None:
    """Until all that has befallen the jobs so far is written down: one of them gets a mark to be looked for."""
    mark, saved = f"saved-{secrets.token_hex(8)}", control.layout.state / "job_state"
    for job in control.command("squeue", "-h", "--states=PENDING,RUNNING", "-o", "%A").stdout.split():
        if control.command("scontrol", "update", f"JobId={job}", f"Comment={mark}").returncode == 0:
            wait_until(lambda: saved.exists() and mark.encode() in saved.read_bytes(), "slurmctld saves no jobs")
            return


def start_controller(control: Control) -> None:
    """Start slurmctld with the jobs that it saved. Raises ClusterError with its last words."""
    control.start("slurmctld")
    wait_until(lambda: control.controller_answers() or control.ended("slurmctld"), "slurmctld does not answer")
    if control.ended("slurmctld"):
        raise ClusterError(f"slurmctld ended\n\n{tails(control.layout, ['slurmctld'])}")


def down_node(control: Control, node: str) -> None:
    """What an administrator does to a broken node."""
    _scontrol(control, "update", f"NodeName={_known(control, node)}", "State=DOWN", "Reason=test")


def kill_node(control: Control, node: str) -> None:
    """What a power cut does: slurmd, steps and jobs end, and nobody tells slurmctld."""
    control.kill_node(_known(control, node))


def resume_node(control: Control, node: str) -> None:
    """Make a node usable again, whatever was done to it; returns when it is."""
    control.start(_known(control, node))

    def usable() -> bool:
        state = control.node_states().get(node, "")
        if state.startswith(("down", "drain")):
            _scontrol(control, "update", f"NodeName={node}", "State=RESUME")
        return state in USABLE

    wait_until(usable, f"{node} does not come back")


def reset(control: Control) -> None:
    """As new, but for the job ids: all daemons run, no job is known to run, every node is idle."""
    start_controller(control)
    for node in control.options.node_names:
        control.start(node)
    _scontrol(control, "update", "PartitionName=main", "State=UP")
    # What waits goes first. Jobs are killed, not cancelled: SLURM would wait for those that ignore SIGTERM.
    control.command("scancel", "--state=PENDING", "--user", control.options.user)
    for node in control.options.node_names:
        _end_jobs(control, node)
    with contextlib.suppress(ClusterError):
        wait_until(control.queue_is_empty, "the jobs do not end", 2)
    control.command("scancel", "--user", control.options.user)
    for node in control.options.node_names:
        resume_node(control, node)
    wait_until(control.is_empty, "the jobs do not end")


def _end_jobs(control: Control, node: str) -> None:
    """Those too that slurmctld forgot; the steps end with their jobs."""
    processes.kill(lambda: control.processes_of(node) - control.daemons_of(node))


def _known(control: Control, node: str) -> str:
    if node not in control.options.node_names:
        raise ClusterError(f"no node {node}; there are {', '.join(control.options.node_names)}")
    return node


def _scontrol(control: Control, *argv: str) -> None:
    done = control.command("scontrol", *argv)
    if done.returncode != 0:
        raise ClusterError(f"scontrol: {done.stderr.strip() or done.stdout.strip()}")
