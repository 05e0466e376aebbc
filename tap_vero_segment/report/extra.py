"""What the report needs beyond the collector's own packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment.errors import UserError
from tap_vero_segment.extras import importing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def extra(package: str) -> AbstractContextManager[None]:
    """Import a package of the extra ``report``.

    Raises:
        UserError: It is not installed.
    """
    return importing(
        UserError(f"this report needs {package}: pip install 'tap-vero-segment[report]'")
    )
