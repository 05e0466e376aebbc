"""``python -m tap_vero_segment.collector``: the same as ``vero-collector``."""

from tap_vero_segment.console_scripts import collector

collector()
