CREATE TABLE events (
    loaded_at   INTEGER PRIMARY KEY,  -- microseconds since 1970, in commit order
    id          TEXT NOT NULL UNIQUE,
    collection  TEXT NOT NULL,
    received_at INTEGER NOT NULL,     -- microseconds since 1970
    input       TEXT NOT NULL,
    call        BLOB NOT NULL,        -- the track call as JSON, without loadedAt
    body        BLOB,                 -- the request's body as it came
    -- How damage is found: see tap_vero_segment.stores.sqlite.integrity.
    previous    INTEGER NOT NULL,     -- the loaded_at of the event before
    call_check  INTEGER NOT NULL,     -- checksum of loaded_at and call
    rest_check  INTEGER NOT NULL      -- checksum of the columns from id to body, without call
) STRICT;

-- For exports and pruning, which go by the time of receipt.
CREATE INDEX events_received ON events (received_at);

CREATE TABLE chain (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    deleted_until INTEGER NOT NULL    -- up to this loaded_at the newest events were deleted
) STRICT;
INSERT INTO chain VALUES (1, 0);

-- Whoever deletes events, in whatever way, leaves the rest a chain.
CREATE TRIGGER keep_chain AFTER DELETE ON events BEGIN
    UPDATE events SET previous = OLD.previous
    WHERE loaded_at = (SELECT min(loaded_at) FROM events WHERE loaded_at > OLD.loaded_at);
    UPDATE chain SET deleted_until = max(deleted_until, OLD.loaded_at)
    WHERE NOT EXISTS (SELECT 1 FROM events WHERE loaded_at > OLD.loaded_at);
END;

CREATE TABLE dead_letters (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    digest      BLOB NOT NULL UNIQUE, -- of input and body
    received_at INTEGER NOT NULL,
    input       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    body        BLOB NOT NULL,
    -- The reason, without the file and the line that an import puts before it.
    reason_group TEXT AS (substr(
        iif(input = 'import', ltrim(substr(
            ltrim(substr(reason, instr(reason, ': ') + 1)),
            instr(ltrim(substr(reason, instr(reason, ': ') + 1)), ': ') + 1
        )), reason), 1, 300
    )) STORED
) STRICT;
CREATE INDEX dead_letters_by_reason ON dead_letters (reason_group, id, received_at);

CREATE TABLE deleted_dead_letters (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    letters INTEGER NOT NULL          -- that were deleted by hand
) STRICT;

-- What archives have: of the events up to a loaded_at, those received before a time.
CREATE TABLE exports (
    destination TEXT NOT NULL,        -- an archive's URL
    until       INTEGER NOT NULL,     -- a loaded_at
    before      INTEGER NOT NULL,     -- a received_at
    PRIMARY KEY (destination, until)
) STRICT, WITHOUT ROWID;

-- What is being written to an archive, or was when an export broke off.
CREATE TABLE planned_exports (
    destination TEXT PRIMARY KEY,
    until       INTEGER NOT NULL,
    before      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each destination of `forward` has come.
CREATE TABLE forwards (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    key         TEXT NOT NULL UNIQUE, -- a digest of its URL, which can hold a secret
    destination TEXT NOT NULL,        -- the URL's scheme and host
    until       INTEGER NOT NULL,     -- a loaded_at
    letter      INTEGER NOT NULL,     -- the number of a dead letter
    sent        INTEGER NOT NULL DEFAULT 0,
    skipped     INTEGER NOT NULL DEFAULT 0,
    refused     INTEGER NOT NULL DEFAULT 0,
    failing     INTEGER NOT NULL DEFAULT 0,
    failure     TEXT,
    failed_at   INTEGER               -- microseconds since 1970
) STRICT;

CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL               -- microseconds since 1970
) STRICT;

CREATE TABLE ignored (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    calls INTEGER NOT NULL            -- that came and are none of the collections
) STRICT;

-- Requests that collectors have refused.
CREATE TABLE refused_requests (
    reason   TEXT PRIMARY KEY,
    requests INTEGER NOT NULL,
    last_at  INTEGER NOT NULL         -- microseconds since 1970
) STRICT, WITHOUT ROWID;

-- Totals and arrivals are counted as events are written, never by a scan.
CREATE TABLE totals (
    collection      TEXT PRIMARY KEY,
    events          INTEGER NOT NULL,
    first_loaded_at INTEGER NOT NULL,
    last_loaded_at  INTEGER NOT NULL  -- outlives the events: loaded_at never goes back
) STRICT, WITHOUT ROWID;

CREATE TABLE arrivals (
    start      INTEGER NOT NULL,      -- of a slot, microseconds since 1970
    collection TEXT NOT NULL,
    events     INTEGER NOT NULL,
    PRIMARY KEY (start, collection)
) STRICT, WITHOUT ROWID;

-- The index of events: see tap_vero_segment.stores.search.
CREATE TABLE search_blocks (
    number   INTEGER PRIMARY KEY,
    after    INTEGER NOT NULL,        -- it has the events with after < loaded_at <= until
    until    INTEGER NOT NULL,
    first    INTEGER NOT NULL,        -- a loaded_at
    oldest   INTEGER NOT NULL,        -- a timestamp
    newest   INTEGER NOT NULL,        -- a timestamp
    checksum INTEGER NOT NULL
) STRICT;

CREATE TABLE search_parts (
    number   INTEGER PRIMARY KEY,     -- 256 times the block's, and 0 to 255
    entries  BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;

CREATE TRIGGER forget_parts AFTER DELETE ON search_blocks BEGIN
    DELETE FROM search_parts WHERE number >= OLD.number * 256 AND number < OLD.number * 256 + 256;
END;

-- How often blocks were changed or events deleted: what is made of events of before is thrown away.
CREATE TABLE search_changes (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL
) STRICT;
INSERT INTO search_changes VALUES (1, 0);

-- The people who were erased, by a keyed hash of an address or a user's id.
CREATE TABLE erasure_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL
) STRICT;
INSERT INTO erasure_key VALUES (1, randomblob(32));

CREATE TABLE erasures (
    number       INTEGER PRIMARY KEY AUTOINCREMENT, -- a change gives a row a new one
    digest       BLOB NOT NULL UNIQUE,
    erased_at    INTEGER NOT NULL,    -- when it was asked for: later than any loaded_at before
    finished_at  INTEGER,             -- null: not yet, or broken off
    suppress     INTEGER NOT NULL,    -- 1: what comes later is dropped
    events       INTEGER NOT NULL,    -- that were deleted for it
    dead_letters INTEGER NOT NULL
) STRICT;

-- For the stream erasures.
CREATE TABLE erased_events (
    loaded_at INTEGER PRIMARY KEY,    -- of the erasure, in commit order
    id        TEXT NOT NULL,          -- the event's messageId
    erased_at INTEGER NOT NULL        -- later than the event's loaded_at
) STRICT;

CREATE TABLE dropped (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    calls INTEGER NOT NULL            -- events and dead letters of erased people that came later
) STRICT;
