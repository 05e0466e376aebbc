"""A collector of an earlier release: it maps less than today's does, and so it quarantines more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.collector import SECRETS

if TYPE_CHECKING:
    from pathlib import Path

NEWER = "newer"
"""A property that the earlier release stumbles over."""

DEEPEST = 20
"""Levels of nesting that it reads."""

# Python runs it before anything else, so that the collector's modules are there as they were.
_OLDER = f"""
import msgspec

from tap_vero_segment import collection
from tap_vero_segment.inputs import body, segment

del collection.BY_VERO_TYPE["complained"]
body.MAX_DEPTH = {DEEPEST}
body.check_depth.__defaults__ = ({DEEPEST},)
from_fields = segment.from_fields


def read_json(text):
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError from error


def stumbling(fields, *beside):
    if {NEWER!r} in (fields.get("properties") or {{}}):
        raise KeyError({NEWER!r})
    return from_fields(fields, *beside)


body.read_json = read_json
segment.from_fields = stumbling
"""


def older_release(folder: Path) -> dict[str, str]:
    """Return the environment in which a collector is one of the earlier release."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_OLDER, encoding="utf-8")
    return SECRETS | {"PYTHONPATH": str(folder)}
