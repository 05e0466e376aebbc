"""The tap inside the tests' own process, for tests that need a great many runs or look inside."""

from __future__ import annotations

import io
import signal
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from tap_vero_segment.tap import TapVeroSegment
from tests.support.tap import Messages, read_messages

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def signal_handlers_kept() -> Generator[None]:
    """Give the tests their own signal handlers back, which any tap replaces by its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def inline_tap(
    config: dict[str, Any],
    state: dict[str, Any] | None = None,
    catalog: dict[str, Any] | None = None,
) -> Generator[TapVeroSegment]:
    """The tap as an object."""
    with signal_handlers_kept():
        yield TapVeroSegment(config=dict(config), state=state, catalog=catalog)


def sync_inline(
    config: dict[str, Any],
    state: dict[str, Any] | None = None,
    catalog: dict[str, Any] | None = None,
) -> Messages:
    """Run a sync to its end; return its messages."""
    with inline_tap(config, state, catalog) as tap:
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        with redirect_stdout(output):
            tap.sync_all()
        lines = output.buffer.getvalue().splitlines()  # type: ignore[attr-defined]
    return read_messages(lines)
