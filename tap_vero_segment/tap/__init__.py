"""The Singer tap: records as messages, with state that is right wherever a run ends."""

from __future__ import annotations

from tap_vero_segment.tap.tap import TapVeroSegment

__all__ = ["TapVeroSegment"]
