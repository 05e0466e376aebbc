"""The Singer target: records of any tap that has events, to Segment's HTTP Tracking API."""

from __future__ import annotations

from tap_vero_segment.targets.segment.target import TargetSegment

__all__ = ["TargetSegment"]
