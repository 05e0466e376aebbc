"""Each target of the matrix loads what its row says, neither worse nor better."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.rounds import WEEKLY
from tests.targets.matrix.destinations import Servers
from tests.targets.matrix.feed import Feed
from tests.targets.matrix.rows import TARGETS, USUAL_PYTHON, Unavailable
from tests.targets.matrix.run import run

if TYPE_CHECKING:
    from pathlib import Path

WEBHOOKS = 3_000 if WEEKLY else 400

pytestmark = pytest.mark.slow


@pytest.mark.timeout(2 * 3600 if WEEKLY else 900)
def test_targets_change_what_their_rows_say(tmp_path: Path) -> None:
    # One test, as all of them share what the tap wrote. All but our own are tried each week.
    tried = [(target, tuple(target.changes)) for target in (TARGETS if WEEKLY else TARGETS[:1])]
    variants = {variant for _, of_target in tried for variant in of_target}
    (tmp_path / "feed").mkdir()
    feed = Feed(tmp_path / "feed", WEBHOOKS, sorted(variants))
    unexpected = {}
    with Servers(tmp_path) as servers:
        for target, of_target in tried:
            for variant in of_target:
                folder = tmp_path / target.name / variant
                try:
                    outcomes = run(target, variant, feed, folder, servers)
                except (Unavailable, pytest.skip.Exception) as reason:
                    # Another Python, or a server's programs, can be missing; a package cannot.
                    if isinstance(reason, Unavailable) and target.python == USUAL_PYTHON:
                        raise
                    sys.stdout.write(f"{target.name} was not tried: {reason}\n")
                    continue
                found = {change for each in outcomes.values() for change in each.changes.count}
                if found != target.changes[variant]:
                    unexpected[target.name, variant] = found
    assert not unexpected
