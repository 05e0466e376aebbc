"""Vero's email events for Singer: a collector that catches what Vero pushes, a tap, a target.

The data walks one way, and each room hands to the next::

    inputs/      what comes in (a webhook, a call)         -> track call
    stores/      track calls on disk, in commit order      -> lines of NDJSON
    sources/     pages of track calls after a cursor       -> track call
    record.py    a track call's columns                    -> record
    tap/         records as Singer messages, with state    -> any target
    tap/batch/   or as files, and the messages that name them
    tap/workers/ the same on the machines of a Dask cluster
    targets/     records to Segment (of any tap that has events) or to DuckDB (of any tap at all)

``collector/`` is the HTTP service in front of the inputs and the stores, ``archive/`` the layout
that both the sources and the collector's export know, ``report/`` what ``vero-collector report``
reads from loaded tables. The collector never loads the Singer SDK, and the tap never loads the web
server. The tap and the targets share ``singer/``. Limits that are not settings are in
``limits.py``.
"""
