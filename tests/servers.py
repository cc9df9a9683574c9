"""Real database servers for the tests: each started in a directory of its own, on a free loopback port.

A server is a child of the process that starts it and gets a signal from the kernel when that process dies,
so that nothing is left running after a test run that was killed.
"""

from __future__ import annotations

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pymysql

START_TIMEOUT = 60.0
# Not the global generator: what seeds that one, as training does, would have two processes take the same ports.
_ANY = random.SystemRandom()
POSTGRESQL_SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "max_connections=200",
    "shared_buffers=32MB",
    "listen_addresses=127.0.0.1",
    "autovacuum=off",
)
# One role that needs no password, and one that does, for tests about secrets.
POSTGRESQL_ACCESS = """\
local all all trust
host all aimlhpo 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


class ServerMissingError(RuntimeError):
    """A server program is not installed. The tests fail then: they never skip."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now; below those the kernel gives to clients."""
    while True:
        port = _ANY.randrange(12000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def find_program(name: str, *folders: str) -> str:
    """The program's path; raises ServerMissingError saying how to install it."""
    found = shutil.which(name, path=os.pathsep.join([*folders, os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        raise ServerMissingError(f"{name} is not installed; run scripts/install-test-servers (as root)")
    return found


def postgresql_program(name: str) -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return find_program(name, *map(str, folders))


class Server:
    """A server process in a directory of its own; `start` returns when it answers."""

    account: str | None = None
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        # Not pytest's tmp_path: root's is closed to the account that the server runs under.
        self.folder = Path(tempfile.mkdtemp(prefix="aimlhpo-test-"))
        self.folder.chmod(0o711)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.databases = 0
        self.started = False

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it is this very server that answers, not another one that was quicker to take the port."""
        raise NotImplementedError

    def as_account(self, command: list[str]) -> list[str]:
        """The command, run under the server's account and ended with its parent."""
        setpriv = [find_program("setpriv"), "--pdeathsig", self.stop_signal.name]
        if self.account and os.geteuid() == 0:
            setpriv += ["--reuid", self.account, "--regid", self.account, "--init-groups"]
        return [*setpriv, "--", *command]

    def start(self) -> Self:
        for _attempt in range(5):
            self._launch()
            if self._wait(self.answers):
                self.started = True
                return self
            self.stop()
            if not self.started:  # clients know no port yet, and this one may have been taken meanwhile
                self.port = free_port()
        raise RuntimeError(f"{type(self).__name__} does not start:\n{self.log()}")

    def _launch(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = self.as_account(self.command())
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")

    def _wait(self, ready: Callable[[], bool]) -> bool:
        """True once `ready`; False when the process ended first or the time is over."""
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end and self.process is not None and self.process.poll() is None:
            if ready():
                return True
            time.sleep(0.05)
        return False

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def stop(self) -> None:
        """End the server; its data stay for the next `start`, on the same port."""
        self.signal(self.stop_signal)
        if self.process is not None:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End the server without a word."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


class PostgreSQL(Server):
    """A PostgreSQL cluster. `url` needs no password; `secret_url` names `password_variable`.

    Only a `lasting` one keeps through a `crash` what it has committed.
    """

    account = "postgres"
    stop_signal = signal.SIGINT  # "fast": open connections are cut
    password_variable = "AIMLHPO_TEST_PASSWORD"

    def __init__(self, lasting: bool = False) -> None:
        super().__init__()
        self.lasting = lasting
        # Of its own: tests look for it in all processes, where another test may just be setting its own.
        self.password = f"s3cret@/#%? {secrets.token_hex(8)}"  # characters that mean something in a URL

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def crash(self) -> None:
        """End the server at once, connections and all; the next `start` recovers from its log."""
        self.signal(signal.SIGQUIT)
        self.stop()

    def start(self) -> Self:
        if not self.data.exists():
            self._create()
        return super().start()

    def _create(self) -> None:
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            account = pwd.getpwnam(self.account)
            for folder in (self.folder, self.data):
                os.chown(folder, account.pw_uid, account.pw_gid)
        initdb = [postgresql_program("initdb"), "-D", str(self.data), "-U", "postgres", "--no-sync"]
        initdb += ["--auth=trust", "--encoding=UTF8", "--locale=C"]
        self._call(initdb)
        (self.data / "pg_hba.conf").write_text(POSTGRESQL_ACCESS)

    def _call(self, command: list[str]) -> str:
        result = subprocess.run(
            self.as_account(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/"
        )
        if result.returncode != 0:
            raise RuntimeError(f"{command[0]} failed ({result.returncode}):\n{result.stdout}{result.stderr}")
        return result.stdout

    def command(self) -> list[str]:
        options = [*POSTGRESQL_SETTINGS, f"port={self.port}", f"unix_socket_directories={self.folder}"]
        options += ["synchronous_commit=on"] if self.lasting else []
        return [postgresql_program("postgres"), "-D", str(self.data)] + [
            word for option in options for word in ("-c", option)
        ]

    def answers(self) -> bool:
        command = [postgresql_program("pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
        return subprocess.run(command).returncode == 0

    def execute(self, statement: str, database: str = "postgres") -> str:
        """The statement's result as text, one row a line."""
        command = [postgresql_program("psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]
        command += ["-h", str(self.folder), "-p", str(self.port), "-d", database, "-c", statement]
        return self._call(command)

    def create_database(self) -> str:
        """A new, empty database's name."""
        self.databases += 1
        name = f"study_{self.databases}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def url(self, database: str | None = None) -> str:
        """A URL without a password; of a new database where none is named."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database or self.create_database()}"

    def secret_url(self, database: str | None = None) -> str:
        """A URL whose password stands in the environment: set `password_variable` to `password` to use it."""
        name = database or self.create_database()
        if not self.execute("SELECT 1 FROM pg_roles WHERE rolname = 'aimlhpo'"):
            self.execute(f"CREATE ROLE aimlhpo LOGIN PASSWORD '{self.password}'")
        self.execute(f"ALTER DATABASE {name} OWNER TO aimlhpo")
        return f"postgresql://aimlhpo:${{{self.password_variable}}}@127.0.0.1:{self.port}/{name}"


class MariaDB(Server):
    """A MariaDB server, for what MySQL's URLs reach; nothing needs a password."""

    account = "mysql"

    def start(self) -> Self:
        if not (self.folder / "data").exists():
            self._create()
        return super().start()

    def _create(self) -> None:
        if os.geteuid() == 0:
            account = pwd.getpwnam(self.account)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        install = [find_program("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder}/data"]
        install += ["--skip-test-db", "--auth-root-authentication-method=normal"]
        done = subprocess.run(self.as_account(install), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")

    def command(self) -> list[str]:
        options = {"datadir": self.folder / "data", "socket": self.folder / "socket", "port": self.port}
        words = [f"--{name}={value}" for name, value in options.items()]
        words += ["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]
        return [find_program("mariadbd"), "--no-defaults", *words, f"--tmpdir={self.folder}"]

    def answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> None:
        with pymysql.connect(unix_socket=f"{self.folder}/socket", user="root") as connection:
            connection.cursor().execute(statement)

    def url(self) -> str:
        """A URL of a new database."""
        self.databases += 1
        self.execute(f"CREATE DATABASE study_{self.databases}")
        return f"mysql://root@127.0.0.1:{self.port}/study_{self.databases}"


class Redis(Server):
    """A Redis server that writes nothing to disk."""

    limit = 500

    def command(self) -> list[str]:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "databases": self.limit}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [find_program("redis-server"), *words, "--save", "", "--appendonly", "no"]

    def answers(self) -> bool:
        command = [find_program("redis-cli"), "-h", "127.0.0.1", "-p", str(self.port), "info", "server"]
        said = subprocess.run(command, capture_output=True, text=True).stdout
        return self.process is not None and f"process_id:{self.process.pid}" in said.split()

    def url(self) -> str:
        """A URL of a database that was not used before."""
        self.databases += 1
        if self.databases >= self.limit:
            raise RuntimeError("all databases of the Redis server are used; raise Redis.limit")
        return f"redis://127.0.0.1:{self.port}/{self.databases}"
