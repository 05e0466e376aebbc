"""What a database user who only reads is told by commands that would show more."""

from __future__ import annotations

import contextlib
import json

import psycopg
import pytest

from tap_vero_segment import times
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.open import open_writer
from tap_vero_segment.stores.postgres.connection import READER_ROLE
from tests.support.collector import Collector, run_collector
from tests.support.payloads import documented


@pytest.fixture
def reading(database, tmp_path):
    """The URL of a store with an event and a dead letter, as a user of the role for readers."""
    with Collector(tmp_path, store_url=database) as collector:
        assert collector.post(documented()).status_code == 200
    with contextlib.closing(open_writer(database, "store")) as writer:
        writer.write([], [DeadLetter(times.now(), "vero", "not JSON", b"nonsense")])
    user = f"reads {database.rpartition('/')[2]}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{user}" LOGIN IN ROLE {READER_ROLE}'.encode())
    return database.replace("vero@", f"{user.replace(' ', '%20')}@")


def test_the_counts_are_shown_without_the_quarantined_bodies(reading, tmp_path):
    said = run_collector("status", "--store", reading, cwd=tmp_path)
    figures = json.loads(run_collector("status", "--json", "--store", reading, cwd=tmp_path).stdout)

    assert (said.returncode, said.stderr) == (0, "")
    assert "events: 1" in said.stdout.splitlines()
    assert "dead letters: not visible to this user" in said.stdout.splitlines()
    assert figures["events"] == 1
    assert figures["quarantined"] is None


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["list", "--json"],
        ["show", "1"],
        ["replay"],
        ["replay", "1"],
        ["delete", "1", "--yes"],
    ],
)
def test_dead_letters_are_told_to_be_for_others(reading, tmp_path, command):
    done = run_collector("dead-letters", *command, "--store", reading, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stdout.count("\n") <= 1  # the list's head
    assert done.stderr == (
        "vero-collector: this database user may not see dead letters; "
        "the collectors' own user may\n"
    )
