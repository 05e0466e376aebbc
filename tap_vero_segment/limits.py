"""Limits that are not settings: of bodies, calls, connections and memory.

Limits that are settings (``--max-pending``, ``--max-connections``, ``--client-timeout``) are in
:mod:`tap_vero_segment.collector.settings`.
"""

from __future__ import annotations

from typing import Final

# Bodies

MAX_BODY: Final = 512 * 1024
"""Bytes of a request's body, as it comes and unzipped; a longer one gets 413."""

MAX_DEPTH: Final = 100
"""Levels of nesting that are read. Targets and warehouses give up at a few hundred."""

MAX_FORM_FIELDS: Final = 100
"""Fields of a form that are looked at for JSON."""

MAX_FORM: Final = 8 * 1024
"""Bytes of a form of the live page."""

# Calls of the Tracking API

MAX_CALL: Final = 32 * 1024
"""Bytes of a call; Segment refuses longer ones, and its own clients send up to that."""

MAX_CALLS: Final = 2_500
"""Calls in a batch; of longer ones Segment says 200, and drops them."""

MAX_SHARED: Final = 4 * 1024 * 1024
"""Bytes of what a batch says for all its calls, counted for each: a kilobyte and a half in each of
the most calls that it may have."""

# Connections

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request's line, headers and trailers; a longer one gets 431."""

MAX_PIPELINE: Final = 64
"""Requests that are read ahead of their responses, each of which costs kilobytes. The rest of what
the client has sent waits unread."""

MAX_WATCHERS: Final = 20
"""Open live pages."""

# Memory

MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
"""Bytes of bodies that wait for their commit."""

MAX_HALF_RECEIVED: Final = 64 * 1024 * 1024
"""Bytes of bodies that have arrived in part, over all connections that have shown a secret."""

MAX_STRANGERS_HALF_RECEIVED: Final = 16 * 1024 * 1024
"""The same, of clients that have shown none: theirs can be in the body, or be its signature."""

MAX_RESPONSES: Final = 64 * 1024 * 1024
"""Bytes of large responses that are being made, or that their clients have not taken yet."""

PAGE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of track calls or bodies that a reader returns at once, or a larger one alone.

What is in memory while a store is read goes with this, not with how many events are asked for.
"""
