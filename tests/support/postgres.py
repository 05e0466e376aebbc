"""A real PostgreSQL server of a test's own, from the binaries that Debian's package brings."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "vero"


def binaries() -> Path:
    """Where the newest server's programs are; skip the test where there is none.

    With ``VERO_TESTS_NEED_POSTGRES`` set, as in CI, that is a failure.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: p.parts[-3])
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    if on_path:
        return Path(on_path).parent
    if os.environ.get("VERO_TESTS_NEED_POSTGRES"):
        pytest.fail("no PostgreSQL server is installed")
    pytest.skip("needs a PostgreSQL server: apt-get install postgresql")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Postgres:
    """A server on a free port of this machine, its data in a folder of its own.

    It does not run as root, which PostgreSQL refuses to.

    Args:
        disk: The folder to make its own folder in; None: where temporary files go.
    """

    def __init__(self, disk: Path | None = None) -> None:
        self.binaries = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="vero-postgres-", dir=disk))
        self._data = self.folder / "data"
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        if os.geteuid() != 0:
            self._as = []
        else:
            shutil.chown(self.folder, "postgres", "postgres")
        self.port = free_port()
        self.log_file = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        small = [] if disk is None else ["--wal-segsize=1"]
        kind = ["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", *small]
        self._run("initdb", "-D", self._data, *kind)

    def _run(self, program: str, *arguments: Any) -> None:
        subprocess.run(
            [*self._as, self.binaries / program, *map(str, arguments)],
            check=True,
            capture_output=True,
            cwd=self.folder,
            timeout=60,
        )

    def make_user(self, name: str, password: str, role: str) -> None:
        """Make a user who has to say a password, and is a member of a role."""
        rules = self._data / "pg_hba.conf"
        rule = f'host all "{name}" 127.0.0.1/32 scram-sha-256\n'
        rules.write_text(rule + rules.read_text(encoding="ascii"), encoding="ascii")
        with self.connect() as connection:
            connection.execute(
                f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}' IN ROLE {role}".encode()
            )
            connection.execute("SELECT pg_reload_conf()")

    def url(self, database: str = "postgres", user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.url(database), autocommit=True)

    def create(self, database: str) -> str:
        """Make an empty database; return its URL."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return self.url(database)

    def start(self) -> Self:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 100,
            "shared_buffers": "32MB",
            # Each test's database would be looked at each minute.
            "autovacuum_naptime": "1h",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._as, str(self.binaries / "postgres"), "-D", str(self._data), *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return self
            time.sleep(0.02)
        raise AssertionError(self.log_file.read_text(encoding="utf-8"))

    def kill(self) -> None:
        """End all of it with SIGKILL, as a crash of the machine would but for the disk's cache."""
        assert self.process is not None
        # Stopped first, so that it has no further child meanwhile.
        self.process.send_signal(signal.SIGSTOP)
        children = _children(self.process.pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.kill()
        self.process.wait(timeout=30)
        deadline = time.monotonic() + 30
        while any(map(_runs, children)):
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def stop(self) -> None:
        """End it as an administrator who will not wait does: open connections are cut."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@contextlib.contextmanager
def running_postgres(disk: Path | None = None) -> Iterator[Postgres]:
    server = Postgres(disk)
    try:
        yield server.start()
    finally:
        server.remove()
