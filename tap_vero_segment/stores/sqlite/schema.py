"""The schema of the embedded store, as the steps that led to it.

A new store takes all of them; one that an older release wrote takes the steps that it lacks when a
collector opens it. A step that was released is never changed.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

MIGRATIONS: Final = (
    resources.files("tap_vero_segment.stores.sqlite").joinpath("schema.sql").read_text("utf-8"),
)
"""Each takes a store from the schema of its place, the first one from an empty file, to the next.

The schema's version is their number.
"""
