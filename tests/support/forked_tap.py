"""The tap in processes that are forked from one that has imported it already.

Importing takes longer than most runs of a test. Each run is a process of its own all the same,
with its own pipes, signals and exit status, in which the command line does what it always does.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Self

from tests.support.collector import clean_environment
from tests.support.tap import TAP, Messages, Run, read_messages, tap_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_ROOT = Path(__file__).parents[2]

_NUMBER = 4
"""Bytes of a number between the two processes."""


def receive_number(session: socket.socket) -> int:
    number = session.recv(_NUMBER, socket.MSG_WAITALL)
    assert len(number) == _NUMBER, "the process that forks is gone"
    return int.from_bytes(number)


@dataclass
class RunningTap:
    """A run of the tap under way; its standard error goes to a file."""

    pid: int
    stdout: BinaryIO
    errors: Path
    session: socket.socket
    _status: int | None = field(default=None, init=False)

    def stderr(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 60) -> int:
        """Return the exit status once it has ended; minus the signal that it died of."""
        if self._status is None:
            self.session.settimeout(timeout)
            self._status = os.waitstatus_to_exitcode(receive_number(self.session))
        return self._status

    def finish(self) -> Run:
        """Read to the end; only a run that ended well is parsed as messages."""
        output = self.stdout.read()
        status = self.wait()
        messages = read_messages(output.splitlines() if status == 0 else [])
        return Run(status, messages, output, self.stderr())

    def close(self) -> None:
        """End it, if it has not ended yet."""
        self.stdout.close()
        if self._status is None:
            with suppress(ProcessLookupError):  # it has just ended
                self.send_signal(signal.SIGKILL)
            self.wait()
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class ForkedProcess:
    """A process under way, with what tests use of ``subprocess.Popen``."""

    def __init__(self, pid: int, session: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._session = session

    def send_signal(self, number: int) -> None:
        # As Popen does: one that has ended gets none.
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """Return the exit status once it has ended; minus the signal that it died of.

        Raises:
            subprocess.TimeoutExpired: It has not ended by then.
        """
        if self.returncode is None:
            self._session.settimeout(timeout)
            try:
                status = receive_number(self._session)
            except (BlockingIOError, TimeoutError) as error:
                raise subprocess.TimeoutExpired("forked", timeout) from error
            self.returncode = os.waitstatus_to_exitcode(status)
            self._session.close()
        return self.returncode


class TapForks:
    """The process that forks, started when it is first wanted; usable as a context manager."""

    # Unbuffered, as in many containers: a signal then cuts writes short.
    program: tuple[str, ...] = ("-u", "-m", "tests.support.forked_tap")
    """The arguments of Python that run a module with ``serve_forks``."""

    def __init__(self) -> None:
        self.runs = 0
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, arguments: list[str], cwd: Path, env: dict[str, str], timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Run to the end; return the exit status, the standard output and the standard error."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            outputs = (output.fileno(), errors.fileno())
            process = ForkedProcess(*self.fork(cwd, arguments, env, outputs))
            try:
                status = process.wait(timeout)
            finally:
                process.kill()
            output.seek(0)
            errors.seek(0)
            return status, output.read(), errors.read()

    def start(self, cwd: Path, arguments: list[str], env: dict[str, str]) -> RunningTap:
        errors = cwd / "stderr"
        reading, writing = os.pipe()
        try:
            with errors.open("wb") as log:
                pid, session = self.fork(cwd, arguments, env, (writing, log.fileno()))
        finally:
            os.close(writing)
        return RunningTap(pid, open(reading, "rb"), errors, session)  # noqa: PTH123

    def fork(
        self, cwd: Path, arguments: list[str], env: dict[str, str], outputs: tuple[int, int]
    ) -> tuple[int, socket.socket]:
        """Start a process; return its number, and the socket that its status will come from."""
        self.__enter__()
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": env}).encode()
        session = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        session.settimeout(60)
        session.connect(self._address)
        socket.send_fds(session, [len(request).to_bytes(_NUMBER)], outputs)
        session.sendall(request)
        return receive_number(session), session

    def __enter__(self) -> Self:
        if self._process is not None:
            return self
        self._folder = tempfile.TemporaryDirectory(prefix="forks")
        self._address = f"{self._folder.name}/socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(self._address)
            listener.listen(16)
            self._process = subprocess.Popen(
                [sys.executable, *self.program, str(listener.fileno())],
                cwd=_ROOT,
                env=clean_environment(),
                pass_fds=[listener.fileno()],
            )
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None
            self._folder.cleanup()


TAP_FORKS = TapForks()
"""For all tests, which stop it at their end."""


@dataclass
class ForkedTap:
    """The tap, each run of it in a new working folder inside ``folder``."""

    forks: TapForks
    folder: Path

    def start(
        self,
        config: dict[str, Any],
        *arguments: str,
        state: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> RunningTap:
        """Start a run; its messages wait in the pipe until they are read."""
        self.forks.runs += 1
        cwd = self.folder / f"run-{self.forks.runs}"
        cwd.mkdir()
        command = tap_command(cwd, config, *arguments, state=state, catalog=catalog)
        return self.forks.start(cwd, command[len(TAP) :], clean_environment() | (env or {}))

    def run(
        self,
        config: dict[str, Any],
        *arguments: str,
        state: dict[str, Any] | None = None,
        catalog: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> Run:
        """Run the tap to its end."""
        with self.start(config, *arguments, state=state, catalog=catalog, env=env) as running:
            return running.finish()

    def said(self, *arguments: str) -> str:
        """Run the tap for what it tells people, which has to go well."""
        with self.start({}, *arguments) as running:
            text = running.stdout.read().decode()
            assert running.wait() == 0, running.stderr()
        return text

    def good(self, config: dict[str, Any], *arguments: str, **files: Any) -> Messages:
        """Run the tap to its end, which has to be a good one; return its messages."""
        run = self.run(config, *arguments, **files)
        assert run.status == 0, run.stderr
        return run.messages


def serve_forks(listener: socket.socket, program: str) -> None:
    """Serve requests while the tests run; return in each process that is to be the program."""
    tests = os.getppid()
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while os.getppid() == tests:
            for key, _ in selector.select(timeout=1):
                if key.fileobj is not listener:
                    selector.unregister(key.fileobj)
                    _report_the_end(key.fd, *key.data)
                    continue
                session, _ = listener.accept()
                request, outputs = _receive(session)
                pid = os.fork()
                if not pid:
                    break
                for output in outputs:
                    os.close(output)
                session.sendall(pid.to_bytes(_NUMBER))
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, session))
            else:
                continue
            break
        else:
            sys.exit()
        others = [key for key in selector.get_map().values() if key.fileobj is not listener]
    for key in others:  # runs under way are not this process's matter
        os.close(key.fd)
        key.data[1].close()
    listener.close()
    session.close()
    for output, number in zip(outputs, (1, 2), strict=True):
        os.dup2(output, number)
        os.close(output)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv = [program, *request["arguments"]]


def _receive(session: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, outputs, _, _ = socket.recv_fds(session, _NUMBER, 2)
    payload = b""
    while len(payload) < int.from_bytes(head):
        payload += session.recv(1 << 16)
    return json.loads(payload), outputs


def _report_the_end(handle: int, pid: int, session: socket.socket) -> None:
    os.close(handle)
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):  # nobody may want to know
        session.sendall(status.to_bytes(_NUMBER))
    session.close()


def run_forked(program: Callable[[], object]) -> NoReturn:
    """Run a program in such a process, and end as Python does without taking all modules apart.

    That would take several times as long as most commands do: each page of memory that it writes to
    is copied for it.
    """
    try:
        program()
        status = 0
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        status = end.code or 0
    threading._shutdown()  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    with suppress(OSError):  # which Python would report on its own way out
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    import apsw  # noqa: F401
    import singer_sdk.contrib.batch_encoder_jsonl
    import singer_sdk.testing  # noqa: F401

    from tap_vero_segment.tap import TapVeroSegment

    TapVeroSegment.print_version(print_fn=str)  # imports what it needs for it, and keeps it
    gc.freeze()  # what is imported is collected in no run, and so copied for none
    serve_forks(socket.socket(fileno=int(sys.argv[1])), "tap-vero-segment")
    run_forked(TapVeroSegment.cli)
