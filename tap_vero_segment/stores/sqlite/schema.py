"""The schema of the embedded store, as the steps that led to it.

A store that an older release wrote takes the steps that it lacks when a collector opens it; a new
one takes all of them. A step that was released is never changed.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final = (
    """
CREATE TABLE events (
    loaded_at   INTEGER PRIMARY KEY,  -- microseconds since 1970, in commit order
    id          TEXT NOT NULL UNIQUE,
    collection  TEXT NOT NULL,
    received_at INTEGER NOT NULL,     -- microseconds since 1970
    input       TEXT NOT NULL,
    call        BLOB NOT NULL,        -- the track call as JSON, without loadedAt
    body        BLOB                  -- the request's body as it came
) STRICT;
CREATE TABLE dead_letters (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    digest      BLOB NOT NULL UNIQUE, -- of input and body
    received_at INTEGER NOT NULL,
    input       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    body        BLOB NOT NULL
) STRICT;
CREATE TABLE exports (
    destination TEXT PRIMARY KEY,     -- an archive's URL
    until       INTEGER NOT NULL      -- the loaded_at up to which it has the events
) STRICT, WITHOUT ROWID;
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL               -- microseconds since 1970
) STRICT;
CREATE TABLE passed_over (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    calls INTEGER NOT NULL            -- that came and are none of the collections
) STRICT;
CREATE TABLE totals (                 -- counted as events are written, never by a scan
    collection      TEXT PRIMARY KEY,
    events          INTEGER NOT NULL,
    first_loaded_at INTEGER NOT NULL,
    last_loaded_at  INTEGER NOT NULL  -- outlives the events: loaded_at never goes back
) STRICT, WITHOUT ROWID;
""",
    # What damage is told by: see tap_vero_segment.stores.sqlite.damage. Who deletes events, in
    # whatever way, leaves the rest a chain.
    """
ALTER TABLE events ADD COLUMN previous INTEGER;   -- the loaded_at of the event before
ALTER TABLE events ADD COLUMN call_check INTEGER; -- checksum of loaded_at and call
ALTER TABLE events ADD COLUMN rest_check INTEGER; -- checksum of the other columns
CREATE TABLE chain (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    since         INTEGER NOT NULL,   -- up to this loaded_at events have no checksums
    deleted_until INTEGER NOT NULL    -- up to this loaded_at the newest events were deleted
) STRICT;
INSERT INTO chain SELECT 1, coalesce(max(last_loaded_at), 0), 0 FROM totals;
CREATE TRIGGER keep_chain AFTER DELETE ON events BEGIN
    UPDATE events SET previous = coalesce(
        OLD.previous, (SELECT max(loaded_at) FROM events WHERE loaded_at < OLD.loaded_at), 0
    ) WHERE loaded_at = (SELECT min(loaded_at) FROM events WHERE loaded_at > OLD.loaded_at);
    UPDATE chain SET deleted_until = max(deleted_until, OLD.loaded_at)
    WHERE NOT EXISTS (SELECT 1 FROM events WHERE loaded_at > OLD.loaded_at);
END;
""",
    """
CREATE TABLE arrivals (               -- counted as events are written, never by a scan
    start      INTEGER NOT NULL,      -- of a slot of five minutes, microseconds since 1970
    collection TEXT NOT NULL,
    events     INTEGER NOT NULL,
    PRIMARY KEY (start, collection)
) STRICT, WITHOUT ROWID;
""",
)

CHECKED_VERSION: Final = 2
"""The schema since which damage can be told."""

SCHEMA_VERSION: Final = len(MIGRATIONS)
