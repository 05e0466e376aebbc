"""``python -m tap_vero_segment.collector``: the same as ``vero-collector``."""

from tap_vero_segment.collector.cli import main

main(prog_name="vero-collector")
