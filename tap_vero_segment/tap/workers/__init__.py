"""Backfills past one machine: the workers of a Dask cluster read objects and write batch files.

The tap lists the objects, hands them out, and writes the messages in the order of the bookmark.
"""
