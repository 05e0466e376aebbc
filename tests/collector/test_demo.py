"""``vero-collector demo``: one command that shows everything."""

from __future__ import annotations

import re
import signal
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Self

import duckdb

from tests.support.collector import (
    Collector,
    clean_environment,
    collector_command,
    run_collector,
    wait_until,
)
from tests.support.payloads import documented
from tests.support.stored import stored
from tests.support.watching import Visitor

if TYPE_CHECKING:
    from pathlib import Path


class Demo:
    """A running demo, whose page has been printed; usable as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / ".demo" / "vero-events.db"
        self._output = folder / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                collector_command("demo"),
                cwd=folder,
                env=clean_environment() | {"VERO_COLLECTOR_URL": "https://real.example"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        wait_until(
            lambda: "Stop with Ctrl+C" in self.output() or self.process.poll() is not None, 60
        )
        return self

    def output(self) -> str:
        return self._output.read_text()

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(timeout=30) == 0, self.output()
        finally:
            self.process.kill()


def test_one_command_shows_everything_and_starts_from_nothing_each_time(tmp_path):
    for _ in range(2):
        with Demo(tmp_path) as demo:
            said = demo.output()
            [url] = re.findall("^The live page: (http://127.0.0.1:[0-9]+)/$", said, re.MULTILINE)
            [token] = re.findall("^Its read token: (.+)$", said, re.MULTILINE)
            page = Visitor(SimpleNamespace(url=url)).log_in(token).see().text  # type: ignore[arg-type]
            assert "Events are arriving" in page
            assert "real.example" not in page
            wait_until(lambda: len(stored(demo.store)) > 295)
        assert re.search(r"^email_sent +101$", said, re.MULTILINE)
        assert "Autumn collection (20261)" in said
        assert demo.output().endswith("The events are in sqlite:///.demo/vero-events.db.\n")
        with duckdb.connect(str(tmp_path / ".demo" / "warehouse.duckdb")) as connection:
            assert connection.execute("SELECT COUNT(*) FROM vero.tracks").fetchall() == [(290,)]


def test_a_demo_beside_another_leaves_it_alone(tmp_path):
    assert run_collector("sample", cwd=tmp_path).returncode == 0
    store = f"sqlite:///{tmp_path / '.demo' / 'vero-events.db'}"
    with Collector(tmp_path, store_url=store) as collector:
        for command in (["demo"], ["sample", "--fresh"]):
            done = run_collector(*command, cwd=tmp_path)
            assert done.returncode == 1
            [line] = done.stderr.splitlines()
            assert "is open in another process" in line
        assert collector.post(documented("opened")).status_code == 200


def test_a_fresh_sample_is_of_the_default_store_only(tmp_path):
    for _ in range(2):
        assert run_collector("sample", "--fresh", cwd=tmp_path).returncode == 0
    assert len(stored(tmp_path / ".demo" / "vero-events.db")) == 295
    done = run_collector("sample", "--fresh", "--store", "sqlite:///mine.db", cwd=tmp_path)
    assert done.returncode == 2
    assert "leave out --store" in done.stderr
