"""The tables and functions of the shared store, as the steps that led to them.

Everything lies in a schema of its own, :data:`SCHEMA`. What writes events is a function in the
database, so that the lock under which ``loaded_at`` rises is taken and let go by the server alone:
a collector that is frozen or cut off in the middle of a request holds nobody up.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

SCHEMA: Final = "vero_collector"

READER_ROLE: Final = "vero_collector_reader"
"""May read events and counts, and nothing else."""

_FILES: Final = resources.files("tap_vero_segment.stores.postgres")


def _sql(name: str) -> str:
    return _FILES.joinpath(name).read_text("utf-8")


MIGRATIONS: Final = (_sql("schema.sql") + _sql("functions.sql"),)
"""Each takes the schema from the version of its place to the next; never changed once released.

The schema's version is their number.
"""

READERS: Final = _sql("readers.sql")
"""Makes :data:`READER_ROLE`, after each migration: for a user who may make roles."""
