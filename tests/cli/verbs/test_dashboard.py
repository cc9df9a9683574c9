"""`aimlhpo dashboard`: Optuna's own dashboard, on real storages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aimlhpo.cli.main import main
from aimlhpo.cli.verbs.tools import tunnel
from tests.cli.studies import fill_study
from tests.faults.test_secrets import command_lines
from tests.project import Project
from tests.servers import PostgreSQL
from tests.waiting import wait_until


@contextmanager
def dashboard(save_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command while it runs, and the address that it gives for the study."""
    command = [sys.executable, "-m", "aimlhpo", "dashboard", str(save_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/dashboard/studies/\d+", first)
            assert found, first
            assert "ssh -N -L " in process.stdout.readline()
            yield process, found[0]
        finally:
            process.kill()


def ask(url: str, method: str = "GET") -> Any:
    data = b"{}" if method != "GET" else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize("kind", ["sqlite", "journal", "postgresql"])
def test_the_study_and_its_trials_are_shown_and_cannot_be_changed(
    kind: str,
    tmp_path: Path,
    make_storage_url: Callable[[str], str],
    postgresql_server: PostgreSQL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(postgresql_server.password_variable, postgresql_server.password)
    url = postgresql_server.secret_url() if kind == "postgresql" else make_storage_url(kind)
    project = Project(tmp_path, storage=url, n_trials=3)
    project.run()
    study = project.study()
    with dashboard(project.save_path) as (process, address):
        api = address.replace("/dashboard/", "/api/")
        page = urllib.request.urlopen(address, timeout=60).read()
        assert b"<title>Optuna Dashboard" in page
        listed = ask(api.rpartition("/")[0])["study_summaries"]
        assert [study["study_name"] for study in listed] == ["s"]
        shown = ask(api)
        assert [trial["state"] for trial in shown["trials"]] == ["Complete"] * 3
        assert {parameter["name"] for parameter in shown["trials"][0]["params"]} == {"x"}
        assert {attribute["key"] for attribute in shown["union_user_attrs"]} == {"val_loss", "x_seen"}
        for trial in shown["trials"]:  # each metric under its own name, and nothing else
            attributes = {attribute["key"]: float(attribute["value"]) for attribute in trial["user_attrs"]}
            assert attributes == {"val_loss": trial["values"][0], "x_seen": study.trials[trial["number"]].params["x"]}
        assert listed[0]["user_attrs"] == []
        for path, method in ((api, "DELETE"), (f"{api}/rename", "POST"), (f"{api}/note", "PUT")):
            with pytest.raises(urllib.error.HTTPError, match="403") as refused:
                ask(path, method)
            assert b"changes nothing" in refused.value.read()
        assert postgresql_server.password.encode() not in command_lines()
        study.tell(study.ask(), 1.0)  # it may be running
        wait_until(lambda: len(ask(api)["trials"]) == 4, "the new trial")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == os.EX_OK
        assert process.stderr is not None
        assert process.stderr.read() == "the dashboard has ended; the study goes on\n"


def test_a_port_that_is_taken_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    fill_study(project, 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["dashboard", str(project.save_path), "--port", port]) == 2
    assert f"port {port} cannot be used: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_what_is_no_port_is_told(port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(tmp_path), "--port", port]) == 2
    assert "legal: a whole number from 1 to 65535" in capsys.readouterr().err


def test_a_missing_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path)
    fill_study(project, 1)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)  # as if it were not installed
    assert main(["dashboard", str(project.save_path)]) == 2
    assert "pip install 'aimlhpo[dashboard]'" in capsys.readouterr().err


def test_from_a_job_the_tunnel_goes_through_the_login_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.delenv("SLURM_SUBMIT_HOST", raising=False)
    assert tunnel(8080) == "ssh -N -L 8080:127.0.0.1:8080 ada@node7"
    monkeypatch.setenv("SLURM_SUBMIT_HOST", "login1")
    assert tunnel(8080) == "ssh -N -J ada@login1 -L 8080:127.0.0.1:8080 ada@node7"
