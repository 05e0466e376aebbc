from __future__ import annotations

from tests.support.archive_fixtures import no_cloud, s3

__all__ = ["no_cloud", "s3"]
