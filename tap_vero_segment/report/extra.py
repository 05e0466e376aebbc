"""What the report needs beyond the collector's own packages."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tap_vero_segment.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def extra(package: str) -> Generator[None]:
    """Import a package of the extra ``report``.

    Raises:
        UserError: It is not installed.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "tap_vero_segment":
            raise
        msg = f"this report needs {package}: pip install 'tap-vero-segment[report]'"
        raise UserError(msg) from error
