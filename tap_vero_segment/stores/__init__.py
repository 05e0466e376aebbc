"""Durable stores: track calls on disk, in commit order.

Each store is a folder with a writing half, which only the collector uses, and a reading half,
which the collector's read API and the tap share. What a reader hands out is one format
everywhere: lines of NDJSON, a track call each, with its ``loadedAt``.
"""
