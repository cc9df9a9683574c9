"""What MLflow has of a study, read with its own client; and a real server of it."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers import free_port
from tests.waiting import wait_until

for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ[name] = "true"
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"

_SERVE = """
import sys
from werkzeug.serving import make_server
from mlflow.server import app
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""


class Runs:
    """All runs at `uri`; trials by number, of the study that is the only one there."""

    def __init__(self, uri: str) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        experiments = self.client.search_experiments()
        self.experiments = {experiment.name for experiment in experiments}
        runs = self.client.search_runs([experiment.experiment_id for experiment in experiments], max_results=5000)
        self.parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        self.trials: dict[int, Any] = {int(run.data.tags["aimlhpo.trial"]): run for run in children}
        self.duplicates = len(children) - len(self.trials)

    @property
    def statuses(self) -> dict[str, int]:
        """How many trials there are by MLflow's status."""
        found = [run.info.status for run in self.trials.values()]
        return {status: found.count(status) for status in sorted(set(found))}

    def history(self, number: int, name: str) -> list[tuple[int, float]]:
        """Steps and values of one trial's metric."""
        metrics = self.client.get_metric_history(self.trials[number].info.run_id, name)
        return sorted((metric.step, metric.value) for metric in metrics)


def settled(uri: str) -> Runs:
    """The runs of a study that nobody tells of any more: each trial's is one, below the study's."""
    found = Runs(uri)
    assert found.duplicates == 0
    parents = {run.info.run_id for run in found.parents}
    assert {run.data.tags["mlflow.parentRunId"] for run in found.trials.values()} <= parents
    return found


class Server:
    """MLflow's own server over a directory, on a port of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start it and wait until it answers."""
        environment = {**os.environ, "_MLFLOW_SERVER_FILE_STORE": str(self._directory)}
        environment["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(self._directory)
        with open(self._directory.with_suffix(".log"), "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(self._port)], env=environment, stdout=log, stderr=log
            )
        wait_until(self._answers, "the MLflow server", 120)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
