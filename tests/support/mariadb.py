"""A real MariaDB server of a test's own, from the programs that Debian's package brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

from tests.support.postgres import free_port


class MariaDB:
    """A server on a free port of this machine; usable as a context manager."""

    def __init__(self) -> None:
        if not (server := shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")):
            pytest.skip("needs a MariaDB server: apt-get install mariadb-server")
        self._server = server
        self._folder = Path(tempfile.mkdtemp(prefix="vero-mariadb-"))
        self._user = []
        if os.geteuid() == 0:
            # As root it would run as a user that only the full package of the server makes.
            self._user = ["--user=root"]
        self.port = free_port()

    def query(self, statement: str, database: str = "") -> str:
        """Return a statement's rows as lines of text, exactly as they are."""
        client = ["mariadb", "--no-defaults", "--default-character-set=utf8mb4", "--raw", "--batch"]
        done = subprocess.run(
            [*client, "-N", f"-S{self._folder}/socket", "-uroot", "-e", statement, database],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def create(self, database: str) -> str:
        """Make an empty database; return its URL for SQLAlchemy."""
        self.query(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        return f"mysql://matrix:matrix@127.0.0.1:{self.port}/{database}?charset=utf8mb4"

    def __enter__(self) -> Self:
        data = [f"--datadir={self._folder}/data", *self._user]
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--skip-test-db", *data],
            check=True,
            capture_output=True,
            timeout=60,
        )
        options = [f"--port={self.port}", "--bind-address=127.0.0.1"]
        options += [f"--socket={self._folder}/socket", "--character-set-server=utf8mb4"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._server, "--no-defaults", *data, *options], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.query("GRANT ALL ON *.* TO matrix@'127.0.0.1' IDENTIFIED BY 'matrix'")
            except subprocess.CalledProcessError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError((self._folder / "log").read_text(encoding="utf-8"))

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)
        shutil.rmtree(self._folder, ignore_errors=True)
