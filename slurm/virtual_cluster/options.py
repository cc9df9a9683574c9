"""What a virtual cluster looks like: its size, its ports, its timings."""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Ports:
    """TCP ports on loopback."""

    controller: int
    nodes: tuple[int, ...]
    slurmdbd: int
    database: int


@dataclass(frozen=True)
class Options:
    """The command line of `cluster up`, and the ports that were found for it."""

    nodes: int
    cpus: int
    gpus: int
    accounting: bool
    ports: Ports
    max_array_size: int = 1001
    requeue: bool = True
    host: str = field(default_factory=lambda: socket.gethostname().split(".")[0])
    user: str = field(default_factory=getpass.getuser)

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"gpu{index}" for index in range(self.nodes))

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, file: Path) -> Options:
        """Raises OSError where no cluster was started."""
        data = json.loads(file.read_text())
        ports = data.pop("ports")
        return cls(ports=Ports(**{**ports, "nodes": tuple(ports["nodes"])}), **data)


def free_ports(nodes: int) -> Ports:
    """Ports that nobody listens on now; below the range from which the kernel gives ports to clients."""
    found: list[int] = []
    generator = random.Random(os.urandom(8))
    while len(found) < nodes + 3:
        port = generator.randrange(12000, 32000)
        if port not in found and _is_free(port):
            found.append(port)
    return Ports(found[0], tuple(found[3:]), found[1], found[2])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
