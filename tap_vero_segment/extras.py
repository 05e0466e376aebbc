"""Packages that are only there where an extra was installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from tap_vero_segment.errors import UserError


@contextmanager
def importing(missing: UserError) -> Generator[None]:
    """Import an extra's packages, or modules of ours that do.

    Args:
        missing: What is raised where a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "tap_vero_segment":
            raise
        raise missing from error
