"""How often to try what chance decides."""

from __future__ import annotations

import os

ALL = bool(os.environ.get("VERO_TESTS_ALL_ROUNDS"))


def rounds(most: int) -> int:
    """Return a third of the rounds, at least two; with ``VERO_TESTS_ALL_ROUNDS`` set, all.

    The suite is run before each change and has to be quick; all rounds are run each week.
    """
    return most if ALL else max(2, most // 3)
