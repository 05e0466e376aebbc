"""How often to try what chance decides."""

from __future__ import annotations

import os

import pytest

PERCENT = int(os.environ.get("VERO_TESTS_ROUNDS", "10"))
WEEKLY = PERCENT >= 100
"""Whether to try as well what takes long and tells hardly more than the rest."""

by_rounds = pytest.mark.rounds
"""Marks a test that finds more with more rounds."""


def rounds(most: int, least: int = 2) -> int:
    """Return a share of the rounds: ``VERO_TESTS_ROUNDS`` percent of them, 10 by default.

    The suite is run before each change and has to be quick; each week all rounds are run.
    """
    return max(least, most * PERCENT // 100)
