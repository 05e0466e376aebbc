-- What runs in these runs with the rights of whoever calls them. A fixed search_path keeps a user who
-- may create functions, operators or tables in some other schema from having his run instead.

-- Makes sure that there is a partition for the week that starts then.
CREATE FUNCTION vero_collector.make_partition(week bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    partition text := 'events_' || to_char(
        to_timestamp(week / 1000000) AT TIME ZONE 'UTC', 'YYYYMMDD'
    );
BEGIN
    PERFORM FROM vero_collector.partitions WHERE starts = week;
    IF FOUND THEN
        RETURN;
    END IF;
    -- Made apart and attached then: creating it in place would lock readers out.
    EXECUTE format(
        'CREATE TABLE vero_collector.%I (LIKE vero_collector.events INCLUDING ALL)', partition
    );
    EXECUTE format(
        'ALTER TABLE vero_collector.events ATTACH PARTITION vero_collector.%I'
        ' FOR VALUES FROM (%s) TO (%s)',
        partition, week, week + 604800000000
    );
    INSERT INTO vero_collector.partitions VALUES (week, partition);
END
$function$;

-- Stores events under loaded_at that rises through all commits, of all collectors; returns how
-- many are new. The lock on the clock is held to the end of the commit, and the server lets go of
-- it only when the rows can be seen, so commit order and loaded_at cannot differ.
CREATE FUNCTION vero_collector.append(
    now_at       bigint,                -- microseconds since 1970; null: the server's clock
    ids          text[],
    collections  text[],
    received_ats bigint[],
    inputs       text[],
    calls        bytea[],
    bodies       bytea[],
    -- Of an event without a time of its own: the ids of an equal one that came shortly before or
    -- after, which is the same one where it came within ten minutes. Empty: all have a time.
    earlier      text[],
    later        text[]
) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- Whoever holds the lock may hang; the others must be able to say so to those who wait for them.
SET lock_timeout = '3s' AS $function$
DECLARE
    monday   CONSTANT bigint := 345600000000;   -- the first one after 1970 began
    week     CONSTANT bigint := 604800000000;
    slot     CONSTANT bigint := 300000000;
    kept     CONSTANT bigint := 2678400000000;  -- 31 days of slots
    fine     CONSTANT bigint := 172800000000;   -- 48 hours of them as they are
    hour     CONSTANT bigint := 3600000000;
    whole    bigint;
    alike    CONSTANT bigint := 600000000;      -- ten minutes
    size     CONSTANT integer := coalesce(cardinality(ids), 0);
    newest   bigint;
    last_at  bigint;
    first_at bigint;
    starts_at bigint;
    added    integer;
    timeless bigint[] := '{}';                  -- loaded_at of those that are new
BEGIN
    IF size = 0 THEN
        RETURN 0;
    END IF;
    SELECT last INTO STRICT newest FROM vero_collector.clock FOR UPDATE;
    first_at := greatest(
        coalesce(now_at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), newest + 1
    );
    starts_at := monday + (first_at - monday) / week * week;
    IF first_at + size > starts_at + week THEN
        starts_at := starts_at + week;  -- one commit lies in one partition
        first_at := starts_at;
    END IF;
    PERFORM vero_collector.make_partition(starts_at);
    -- One after the other, as each may be the same as one before it.
    FOR i IN 1 .. coalesce(cardinality(earlier), 0) LOOP
        CONTINUE WHEN earlier[i] IS NULL;
        INSERT INTO vero_collector.ids (id, loaded_at, received_at)
        SELECT ids[i], first_at + i - 1, received_ats[i] WHERE NOT EXISTS (
            SELECT FROM vero_collector.ids near WHERE near.id IN (earlier[i], later[i])
            AND near.received_at BETWEEN received_ats[i] - alike AND received_ats[i] + alike
        )
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            timeless := timeless || (first_at + i - 1);
        END IF;
    END LOOP;
    WITH incoming AS (
        SELECT first_at + given.n - 1 AS loaded_at, given.*
        FROM unnest(ids, collections, received_ats, inputs, calls, bodies) WITH ORDINALITY
            AS given (id, collection, received_at, input, call, body, n)
    ), fresh AS (
        INSERT INTO vero_collector.ids (id, loaded_at)
        SELECT i.id, i.loaded_at FROM incoming i WHERE earlier[i.n::integer] IS NULL
        ORDER BY i.loaded_at
        ON CONFLICT DO NOTHING
        RETURNING ids.loaded_at
    ), new AS (
        SELECT f.loaded_at FROM fresh f UNION ALL SELECT unnest(timeless)
    ), stored AS (
        INSERT INTO vero_collector.events
        SELECT i.loaded_at, i.id, i.collection, i.received_at, i.input, i.call, i.body
        FROM incoming i JOIN new ON new.loaded_at = i.loaded_at ORDER BY i.loaded_at
        RETURNING events.collection, events.loaded_at
    ), counted AS (
        INSERT INTO vero_collector.totals AS t
        SELECT starts_at, s.collection, count(*), min(s.loaded_at), max(s.loaded_at)
        FROM stored s GROUP BY s.collection
        ON CONFLICT (starts, collection) DO UPDATE SET
            events = t.events + excluded.events, last_loaded_at = excluded.last_loaded_at
    ), arrived AS (
        INSERT INTO vero_collector.arrivals AS a
        SELECT s.loaded_at - s.loaded_at % slot, s.collection, count(*)
        FROM stored s GROUP BY 1, 2
        ON CONFLICT (start, collection) DO UPDATE SET events = a.events + excluded.events
    )
    SELECT count(*) INTO STRICT added FROM stored;
    last_at := first_at + size - 1;
    IF last_at / slot > newest / slot THEN  -- a slot is begun
        DELETE FROM vero_collector.arrivals WHERE start < last_at - last_at % slot - kept;
        -- Those of old hours are added up.
        whole := last_at - last_at % slot - fine;
        whole := whole - whole % hour;
        WITH gone AS (
            DELETE FROM vero_collector.arrivals WHERE start < whole AND start % hour > 0
            RETURNING start, collection, events
        )
        INSERT INTO vero_collector.arrivals AS a
        SELECT g.start - g.start % hour, g.collection, sum(g.events) FROM gone g GROUP BY 1, 2
        ON CONFLICT (start, collection) DO UPDATE SET events = a.events + excluded.events;
    END IF;
    UPDATE vero_collector.clock SET last = last_at;
    RETURN added;
END
$function$;

-- Stores what a group of requests has brought, in one statement and so in one commit.
CREATE FUNCTION vero_collector.store(
    now_at              bigint,
    ids                 text[],
    collections         text[],
    received_ats        bigint[],
    inputs              text[],
    calls               bytea[],
    bodies              bytea[],
    earlier             text[],
    later               text[],
    letter_digests      bytea[],
    letter_received_ats bigint[],
    letter_inputs       text[],
    letter_reasons      text[],
    letter_bodies       bytea[],
    letter_earlier      bytea[],
    letter_later        bytea[],
    passed              integer,        -- calls that came and are none of the collections
    OUT added           integer,
    OUT newest          bigint,         -- the newest loaded_at before this
    OUT newest_now      bigint,
    OUT repaired        integer         -- how often the newest loaded_at was taken back
) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS $function$
DECLARE
    alike  CONSTANT bigint := 600000000;        -- ten minutes
    letter record;
BEGIN
    SELECT last INTO STRICT newest FROM vero_collector.clock;
    -- A database or role may be set to answer before the disk has it; a collector must not.
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF cardinality(letter_digests) > 0 THEN
        -- Another collector may get the same just now.
        PERFORM FROM vero_collector.clock FOR UPDATE;
    END IF;
    FOR letter IN SELECT * FROM unnest(
        letter_digests, letter_received_ats, letter_inputs, letter_reasons, letter_bodies,
        letter_earlier, letter_later
    ) AS given (digest, received_at, input, reason, body, earlier, later) LOOP
        INSERT INTO vero_collector.dead_letters (digest, received_at, input, reason, body)
        SELECT letter.digest, letter.received_at, letter.input, letter.reason, letter.body
        WHERE NOT EXISTS (
            SELECT FROM vero_collector.dead_letters near
            WHERE near.digest IN (letter.earlier, letter.later)
            AND near.received_at BETWEEN letter.received_at - alike AND letter.received_at + alike
        )
        ON CONFLICT DO NOTHING;
    END LOOP;
    IF passed > 0 THEN
        INSERT INTO vero_collector.ignored AS p VALUES (1, passed)
        ON CONFLICT (id) DO UPDATE SET calls = p.calls + excluded.calls;
    END IF;
    -- Last, so that the lock is held as briefly as can be.
    added := vero_collector.append(
        now_at, ids, collections, received_ats, inputs, calls, bodies, earlier, later
    );
    SELECT last, repairs INTO STRICT newest_now, repaired FROM vero_collector.clock;
END
$function$;

-- Writes something small, in one statement: all collectors write the same row.
CREATE FUNCTION vero_collector.beat() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS $function$
BEGIN
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    INSERT INTO vero_collector.heartbeat VALUES (1, now())
    ON CONFLICT (id) DO UPDATE SET at = excluded.at;
END
$function$;
