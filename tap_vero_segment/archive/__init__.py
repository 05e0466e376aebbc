"""Segment's raw archive in an object store: finding its objects, reading their lines, writing them.

The layout is that of Segment's AWS S3 and Google Cloud Storage destinations:
``{bucket}[/{prefix}]/segment-logs/{source-id}/{day}/{file}.gz``, where the day is UTC midnight of
the day of receipt in milliseconds since 1970, and each file holds gzipped NDJSON, a call a line.
"""
