"""Programs around other people's clients of Segment's Tracking API: ``URL WRITE_KEY COUNT``.

Each sends ``COUNT`` events of a collection and as many others, batched and zipped as its client
does it, and ends with status 0 when the client holds no more of them.
"""
