-- A user who may not make a schema can be given one; IF NOT EXISTS asks for the right all the same.
DO $$
BEGIN
    IF to_regnamespace('vero_collector') IS NULL THEN
        CREATE SCHEMA vero_collector;
    ELSIF NOT EXISTS (
        SELECT FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
        WHERE n.nspname = 'vero_collector' AND (r.rolsuper OR pg_has_role(r.oid, 'USAGE'))
    ) THEN
        RAISE insufficient_privilege USING MESSAGE =
            'the schema vero_collector belongs to another user, who could replace the functions in'
            ' it: an administrator can change that by ALTER SCHEMA vero_collector OWNER TO';
    END IF;
END
$$;

CREATE TABLE vero_collector.schema_version (
    id      integer PRIMARY KEY CHECK (id = 1),
    version integer NOT NULL
);
INSERT INTO vero_collector.schema_version VALUES (1, 0);

-- One row, locked by whoever writes events, from the choice of loaded_at to the end of the commit.
CREATE TABLE vero_collector.clock (
    id   integer PRIMARY KEY CHECK (id = 1),
    last bigint NOT NULL,               -- the newest loaded_at; outlives the events
    repairs integer NOT NULL            -- how often last was taken back, by repair-clock
) WITH (fillfactor = 10);               -- updated at each commit, in place where there is room
INSERT INTO vero_collector.clock VALUES (1, 0, 0);

-- Every id that is held. A partitioned table cannot keep it unique over all of its partitions.
CREATE TABLE vero_collector.ids (
    id          text COLLATE "C" PRIMARY KEY,
    loaded_at   bigint NOT NULL,
    received_at bigint                  -- of an event without a time of its own
);

CREATE TABLE vero_collector.events (
    loaded_at   bigint PRIMARY KEY,     -- microseconds since 1970, in commit order
    id          text COLLATE "C" NOT NULL,
    collection  text NOT NULL,
    received_at bigint NOT NULL,        -- microseconds since 1970
    input       text NOT NULL,
    call        bytea NOT NULL,         -- the track call as JSON, without loadedAt
    body        bytea                   -- the request's body as it came
) PARTITION BY RANGE (loaded_at);

-- For exports and pruning, which go by the time of receipt. It costs writers next to nothing.
CREATE INDEX ON vero_collector.events USING brin (received_at);

CREATE TABLE vero_collector.partitions (
    starts bigint PRIMARY KEY,          -- a Monday, in microseconds since 1970
    name   text NOT NULL
);

-- Totals and arrivals are counted as events are written, never by a scan.
CREATE TABLE vero_collector.totals (
    starts          bigint NOT NULL REFERENCES vero_collector.partitions ON DELETE CASCADE,
    collection      text NOT NULL,
    events          bigint NOT NULL,
    first_loaded_at bigint NOT NULL,
    last_loaded_at  bigint NOT NULL,
    PRIMARY KEY (starts, collection)
) WITH (fillfactor = 50);

CREATE TABLE vero_collector.arrivals (
    start      bigint NOT NULL,         -- of a slot, microseconds since 1970
    collection text NOT NULL,
    events     bigint NOT NULL,
    PRIMARY KEY (start, collection)
) WITH (fillfactor = 50);

CREATE TABLE vero_collector.dead_letters (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest      bytea NOT NULL UNIQUE,  -- of input and body
    received_at bigint NOT NULL,
    input       text NOT NULL,
    reason      text NOT NULL,
    body        bytea NOT NULL,
    -- The reason, without the file and the line that an import puts before it.
    reason_group text NOT NULL GENERATED ALWAYS AS (substr(
        CASE WHEN input = 'import' THEN ltrim(substr(
            ltrim(substr(reason, strpos(reason, ': ') + 1)),
            strpos(ltrim(substr(reason, strpos(reason, ': ') + 1)), ': ') + 1
        )) ELSE reason END, 1, 300  -- an index takes no more than 2,700 bytes
    )) STORED
);
CREATE INDEX ON vero_collector.dead_letters (reason_group, id) INCLUDE (received_at);

CREATE TABLE vero_collector.deleted_dead_letters (
    id      integer PRIMARY KEY CHECK (id = 1),
    letters bigint NOT NULL             -- that were deleted by hand
);

-- What archives have: of the events up to a loaded_at, those received before a time.
CREATE TABLE vero_collector.exports (
    destination text,                   -- an archive's URL
    until       bigint,                 -- a loaded_at
    before      bigint NOT NULL,        -- a received_at
    PRIMARY KEY (destination, until)
);

-- What is being written to an archive, or was when an export broke off.
CREATE TABLE vero_collector.planned_exports (
    destination text PRIMARY KEY,
    until       bigint NOT NULL,
    before      bigint NOT NULL
);

-- How far each destination of `forward` has come.
CREATE TABLE vero_collector.forwards (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text COLLATE "C" NOT NULL UNIQUE,   -- a digest of its URL, which can hold a secret
    destination text NOT NULL,          -- the URL's scheme and host
    until       bigint NOT NULL,        -- a loaded_at
    letter      bigint NOT NULL,        -- the number of a dead letter
    sent        bigint NOT NULL DEFAULT 0,
    skipped     bigint NOT NULL DEFAULT 0,
    refused     bigint NOT NULL DEFAULT 0,
    failing     boolean NOT NULL DEFAULT false,
    failure     text,
    failed_at   bigint                  -- microseconds since 1970
) WITH (fillfactor = 50);

CREATE TABLE vero_collector.heartbeat (
    id integer PRIMARY KEY CHECK (id = 1),
    at timestamptz NOT NULL
);

-- Requests that collectors have refused.
CREATE TABLE vero_collector.refused_requests (
    reason   text PRIMARY KEY,
    requests bigint NOT NULL,
    last_at  bigint NOT NULL            -- microseconds since 1970
) WITH (fillfactor = 50);

CREATE TABLE vero_collector.ignored (
    id    integer PRIMARY KEY CHECK (id = 1),
    calls bigint NOT NULL               -- that came and are none of the collections
);

-- The index of events: see tap_vero_segment.stores.search.
CREATE TABLE vero_collector.search_blocks (
    number   bigint PRIMARY KEY,
    after    bigint NOT NULL,           -- it has the events with after < loaded_at <= until
    until    bigint NOT NULL,
    first    bigint NOT NULL,           -- a loaded_at
    oldest   bigint NOT NULL,           -- a timestamp
    newest   bigint NOT NULL,           -- a timestamp
    checksum bigint NOT NULL
);

CREATE TABLE vero_collector.search_parts (
    number   bigint PRIMARY KEY,        -- 256 times the block's, and 0 to 255
    entries  bytea NOT NULL,
    checksum bigint NOT NULL
);
-- Hashes cannot be compressed.
ALTER TABLE vero_collector.search_parts ALTER entries SET STORAGE EXTERNAL;

-- How often blocks were changed or events deleted: what is made of events of before is thrown away.
-- Locked, before the clock, by whoever changes the one or the other.
CREATE TABLE vero_collector.search_changes (
    id    integer PRIMARY KEY CHECK (id = 1),
    count bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO vero_collector.search_changes VALUES (1, 0);

-- The people who were erased, by a keyed hash of an address or a user's id.
CREATE TABLE vero_collector.erasure_key (
    id  integer PRIMARY KEY CHECK (id = 1),
    key bytea NOT NULL
);
INSERT INTO vero_collector.erasure_key
VALUES (1, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

CREATE TABLE vero_collector.erasures (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- a change gives a row a new one
    digest       bytea NOT NULL UNIQUE,
    erased_at    bigint NOT NULL,       -- when it was asked for: later than any loaded_at before
    finished_at  bigint,                -- null: not yet, or broken off
    suppress     boolean NOT NULL,      -- what comes later is dropped
    events       bigint NOT NULL,       -- that were deleted for it
    dead_letters bigint NOT NULL
);

-- For the stream erasures.
CREATE TABLE vero_collector.erased_events (
    loaded_at bigint PRIMARY KEY,       -- of the erasure, in commit order
    id        text NOT NULL,            -- the event's messageId
    erased_at bigint NOT NULL           -- later than the event's loaded_at
);

CREATE TABLE vero_collector.dropped (
    id    integer PRIMARY KEY CHECK (id = 1),
    calls bigint NOT NULL               -- events and dead letters of erased people that came later
);
