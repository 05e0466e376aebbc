"""Runs a case and its yardstick in turns, and says how they compare.

Figures are ratios of pairs that ran one after the other on the same machine: what else it does,
it does to both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class Sample(NamedTuple):
    """One run.

    Attributes:
        seconds: How long it took.
        work: How much was done, in the case's own unit: events, records, requests.
        peak_bytes: The most memory that its process held.
        extra: Further figures by name, such as a latency in seconds.
    """

    seconds: float
    work: float
    peak_bytes: int = 0
    extra: Mapping[str, float] = {}

    @property
    def speed(self) -> float:
        """Work in a second."""
        return self.work / self.seconds


class Case(NamedTuple):
    """What is compared with what.

    Attributes:
        name: A word or two, to choose it by.
        title: What is measured.
        yardstick_title: What it is measured against.
        goal: The ratio to reach.
        at_most: Whether the ratio should stay below the goal, not above.
        subject: Runs what is measured.
        yardstick: Runs what it is measured against.
        figure: The figure of a run of which the ratio is taken.
        limits: The most that a further figure of the subject may be, by name.
    """

    name: str
    title: str
    yardstick_title: str
    goal: float
    subject: Callable[[], Sample]
    yardstick: Callable[[], Sample]
    figure: Callable[[Sample], float] = lambda sample: sample.speed
    at_most: bool = False
    limits: Mapping[str, float] = {}


class Result(NamedTuple):
    """What a case came to; the ratio is that of subject to yardstick."""

    case: Case
    ratios: list[float]
    subjects: list[Sample]
    yardsticks: list[Sample]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios)

    @property
    def extra(self) -> dict[str, float]:
        """The medians of the subject's further figures."""
        return {
            name: statistics.median(sample.extra[name] for sample in self.subjects)
            for name in self.subjects[0].extra
        }

    @property
    def reached(self) -> bool:
        """Whether the goal is reached, the limits included."""
        within = all(self.extra[name] <= most for name, most in self.case.limits.items())
        good = self.ratio <= self.case.goal if self.case.at_most else self.ratio >= self.case.goal
        return good and within

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "case": self.case.name,
            "title": self.case.title,
            "yardstick": self.case.yardstick_title,
            "goal": self.case.goal,
            "at_most": self.case.at_most,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "reached": self.reached,
            "subject": statistics.median(map(self.case.figure, self.subjects)),
            "yardstick_figure": statistics.median(map(self.case.figure, self.yardsticks)),
            "extra": self.extra,
        }


def run(case: Case, times: int, earlier: Sequence[Result] = ()) -> Result:
    """Run a case and its yardstick in turns, after a first turn that does not count.

    Args:
        case: The case.
        times: How many pairs count.
        earlier: Results of other cases. One that ran the same, and looked at another figure of it,
            has the samples already.
    """
    for result in earlier:
        if (result.case.subject, result.case.yardstick) == (case.subject, case.yardstick):
            return _result(case, result.subjects, result.yardsticks)
    case.yardstick()
    case.subject()
    subjects, yardsticks = [], []
    for number in range(times):
        # Whoever comes second finds the machine as the first has left it: they take turns at that.
        if number % 2:
            subjects.append(case.subject())
            yardsticks.append(case.yardstick())
        else:
            yardsticks.append(case.yardstick())
            subjects.append(case.subject())
    return _result(case, subjects, yardsticks)


def _result(case: Case, subjects: list[Sample], yardsticks: list[Sample]) -> Result:
    figures = zip(map(case.figure, subjects), map(case.figure, yardsticks), strict=True)
    return Result(
        case, [subject / yardstick for subject, yardstick in figures], subjects, yardsticks
    )


def run_process(
    command: Sequence[str],
    work: float,
    *,
    folder: Path,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
) -> Sample:
    """Run a process to its end, its output read from a pipe and thrown away.

    Raises:
        RuntimeError: It failed; the message has the end of its standard error.
    """
    log = folder / "stderr.log"
    started = time.perf_counter()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    reader = threading.Thread(target=_drain, args=(process.stdout,))
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    reader.join()
    if process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
        msg = f"{command[:4]} ended with {process.returncode}:\n{tail}"
        raise RuntimeError(msg)
    return Sample(seconds, work, usage.ru_maxrss * 1024)


def _drain(pipe: Any) -> None:
    with pipe:
        while pipe.read1(1 << 20):
            pass


def python(*arguments: str) -> list[str]:
    """Return a command that runs Python as it runs here."""
    return [sys.executable, *arguments]


def table(results: Sequence[Result]) -> str:
    """Return results as text, a line each."""
    rows = [("case", "ratio", "spread", "goal", "", "further")]
    for result in results:
        spread = f"{min(result.ratios):.2f} to {max(result.ratios):.2f}"
        sign = "at most" if result.case.at_most else "at least"
        further = ", ".join(f"{name} {value:.4g}" for name, value in result.extra.items())
        rows.append(
            (
                f"{result.case.title} / {result.case.yardstick_title}",
                f"{result.ratio:.2f}",
                spread,
                f"{sign} {result.case.goal:g}",
                "reached" if result.reached else "NOT REACHED",
                further,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
