"""The rows of the embedded store by apsw, thrown away."""

import sys

import apsw

connection = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READONLY)
for _ in connection.execute("SELECT loaded_at, call FROM events ORDER BY loaded_at"):
    pass
