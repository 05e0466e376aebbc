"""The target inside the tests' own process, for tests that look at each state as it is written."""

from __future__ import annotations

import io
import json
import signal
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from tap_vero_segment.targets.segment import TargetSegment

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable


@contextmanager
def own_signal_handlers() -> Generator[None]:
    """Afterwards the tests have their own signal handlers back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _States(io.StringIO):
    """Standard output that looks at each state in the moment in which it is written."""

    def __init__(self, look: Callable[[dict[str, Any]], None] | None) -> None:
        super().__init__()
        self._look = look
        self.states: list[dict[str, Any]] = []

    def write(self, text: str) -> int:
        for line in text.splitlines():
            state = json.loads(line)
            if self._look:
                self._look(state)
            self.states.append(state)
        return len(text)


def send_inline(
    config: dict[str, Any],
    lines: Iterable[bytes],
    look: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Hand messages to a target, to their end; return the states that it wrote.

    Args:
        config: The target's configuration.
        lines: Singer messages.
        look: Called with each state, at the time that it is written.
    """
    output = _States(look)
    with own_signal_handlers(), redirect_stdout(output):
        target = TargetSegment(config=dict(config))
        target.process_lines(iter(lines))  # type: ignore[arg-type]
        target.process_endofpipe()
    return output.states
