-- The role for readers: events, ids of erased ones and counts; neither bodies nor dead letters.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'vero_collector_reader') THEN
        CREATE ROLE vero_collector_reader NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- roles belong to the server: a collector of another database was faster
END
$$;

GRANT USAGE ON SCHEMA vero_collector TO vero_collector_reader;
GRANT SELECT (loaded_at, collection, call) ON vero_collector.events TO vero_collector_reader;
GRANT SELECT (id, loaded_at) ON vero_collector.ids TO vero_collector_reader;
GRANT SELECT ON vero_collector.schema_version, vero_collector.totals, vero_collector.ignored,
    vero_collector.arrivals, vero_collector.refused_requests, vero_collector.erased_events,
    vero_collector.dropped, vero_collector.deleted_dead_letters, vero_collector.search_blocks,
    vero_collector.search_parts TO vero_collector_reader;
GRANT SELECT (number, destination, until, letter, sent, skipped, refused, failing, failure, failed_at)
    ON vero_collector.forwards TO vero_collector_reader;
GRANT SELECT (number, erased_at, finished_at, suppress, events, dead_letters)
    ON vero_collector.erasures TO vero_collector_reader;
