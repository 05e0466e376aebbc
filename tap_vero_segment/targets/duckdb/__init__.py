"""A Singer target for DuckDB, which reads the records' JSON itself."""

from __future__ import annotations

from tap_vero_segment.targets.duckdb.target import TargetVeroDuckDB

__all__ = ["TargetVeroDuckDB"]
