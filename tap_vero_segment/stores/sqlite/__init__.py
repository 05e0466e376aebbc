"""The embedded store: one SQLite file, for one machine.

SQLite comes with ``apsw``, as releases before 3.51.3 have a fault that can corrupt a database in
WAL mode with more than one connection (sqlite.org/wal.html, "the WAL-reset bug"), and Python's own
is often older.
"""
