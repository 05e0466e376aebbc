"""The rows of the shared store by psycopg, from a cursor in the server, thrown away."""

import sys

import psycopg

QUERY = "SELECT loaded_at, call FROM vero_collector.events ORDER BY loaded_at"
with psycopg.connect(sys.argv[1]) as connection, connection.cursor("rows", binary=True) as cursor:
    cursor.itersize = 1_000
    cursor.execute(QUERY)
    for _ in cursor:
        pass
