"""The collector that answers without storing: what HTTP alone takes.

Everything is as in ``vero-collector serve`` but the store's writing half, which forgets.
"""

import sys

from tap_vero_segment.collector import serve
from tap_vero_segment.collector.cli import main
from tap_vero_segment.stores.erasures import ErasedPeople


class Forgets:
    def write(self, events, dead_letters, ignored=0):
        return len(events)

    def check(self):
        return 0

    def erased_people(self):
        return ErasedPeople(b"")

    def probe(self):
        pass

    def nearly_full(self):
        return False

    def close(self):
        pass


serve.open_writer = lambda url, setting: Forgets()
sys.exit(main(prog_name="vero-collector"))
