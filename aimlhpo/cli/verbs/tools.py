"""A study in other tools: `aimlhpo track` tells MLflow and TensorBoard of its trials, and `aimlhpo dashboard` shows
it in Optuna's dashboard, on the study's own storage and in this process, to look at and not to change.

The dashboard can also rename and delete studies and write to trials, which would break a study that runs: such
requests are refused here.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
import sys
from argparse import Namespace
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from aimlhpo.check.settings import with_tracking
from aimlhpo.cli.arguments import UsageError
from aimlhpo.errors import ConfigError, ExitCode, Problem, StorageError, StudyError
from aimlhpo.ledger.leases import Election
from aimlhpo.search.stopping import find_stop_reason
from aimlhpo.storage.locks import locked
from aimlhpo.storage.study import load_study
from aimlhpo.storage.trials import count
from aimlhpo.tracking.sync import TrackingSync
from aimlhpo.tracking.tracker import TRACKERS, asked_trackers, make_targets, tracking_problems

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from aimlhpo.config.schema import Config

_HOST = "127.0.0.1"
_PORT = 8080
_LONGEST_BODY = 1 << 20  # bytes of a refused request that are read, so that its sender gets to read the answer


def run_track(config: Config, arguments: Namespace) -> int:
    given = {name: getattr(arguments, name, None) for name in TRACKERS}
    config = with_tracking(config, {name: value for name, value in given.items() if value is not None})
    problems = [*tracking_problems(config)]
    if not asked_trackers(config):
        problems.append(Problem("log", "the study asks for no tracking tool", "--mlflow [URI] or --tensorboard [DIR]"))
    if problems:
        raise ConfigError(problems)

    study = load_study(config)
    config.paths.create()
    with Election(config.paths.state / "tracker.lock") as election:
        if not election.won():
            raise StudyError(f"an agent of study {config.optuna.study_name} runs, and tells the tools itself")
        targets = make_targets(config, study)
        with locked(config.paths.tracking_lock):
            counts = count(study.get_trials(deepcopy=False))
            reason = find_stop_reason(study, config, counts)
            ended = "stopped" if reason is None or reason.is_failure else "finished"
            missing = TrackingSync(config, study, targets, lambda line: None).finish(ended)
    if missing:
        raise StorageError("\n".join(missing))
    for target in targets:
        print(f"{target.name} has {counts.finished + counts.failed} finished trials of {config.optuna.study_name}")
    return ExitCode.DONE


class DashboardServer(ThreadingMixIn, WSGIServer):
    """One thread for each request, because some take seconds."""

    daemon_threads = True


class SilentHandler(WSGIRequestHandler):
    """Prints no line for each request."""

    def log_message(self, *_: Any) -> None:
        pass


class FirstLine(logging.Formatter):
    """What the dashboard logs, without the traceback that it puts below each error."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).splitlines()[0]


def run_dashboard(config: Config, arguments: Namespace) -> int:
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UsageError(
            "dashboard: the package optuna-dashboard is not installed\n    pip install 'aimlhpo[dashboard]'"
        ) from error
    study = load_study(config)
    errors = logging.StreamHandler()  # of a storage that does not answer, for one
    errors.setFormatter(FirstLine("dashboard: %(message)s"))
    logging.getLogger("optuna_dashboard").addHandler(errors)
    with _bind(read_only(wsgi(study._storage)), arguments.port) as server:
        port = server.server_port
        print(f"study {config.optuna.study_name}: http://{_HOST}:{port}/dashboard/studies/{study._study_id}")
        print(f"from another machine, type there first: {tunnel(port)}")
        print("it shows the study and changes nothing; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("the dashboard has ended; the study goes on", file=sys.stderr)
    return ExitCode.DONE


def read_only(app: WSGIApplication) -> WSGIApplication:
    """The application without the requests that change something."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        environ["wsgi.input"].read(min(int(environ.get("CONTENT_LENGTH") or 0), _LONGEST_BODY))
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"reason": "aimlhpo dashboard shows a study and changes nothing"}']

    return answer


def tunnel(port: int) -> str:
    """The ssh command that brings the port of this machine to the user's own; through the login node from a job."""
    user, login = getpass.getuser(), os.environ.get("SLURM_SUBMIT_HOST")
    jump = f"-J {user}@{login} " if login and login != socket.gethostname() else ""
    return f"ssh -N {jump}-L {port}:{_HOST}:{port} {user}@{socket.gethostname()}"


def _bind(app: WSGIApplication, port: int | None) -> WSGIServer:
    """A server on the port; where none is asked for and the usual one is taken, on any other. Raises UsageError."""
    for wanted in (port,) if port is not None else (_PORT, 0):
        try:
            return make_server(_HOST, wanted, app, DashboardServer, SilentHandler)
        except OSError as error:
            refused = error
    raise UsageError(f"dashboard: port {port} cannot be used: {refused.strerror}\n    give another --port, or none")
