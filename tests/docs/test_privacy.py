"""The settings of the page about privacy: no address is left in what the tap writes."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.support import docs
from tests.support.inline_tap import sync_inline
from tests.support.payloads import documented, many
from tests.support.store import fill
from tests.support.stored import url_of

pytestmark = pytest.mark.slow

HASHED, _ = map(yaml.safe_load, docs.blocks("tap/privacy.md", "yaml"))
OMITTED = {"config": {"email_addresses": "omit"}}


@pytest.mark.parametrize("block", [HASHED, OMITTED], ids=["hashed", "omitted"])
def test_no_address_is_left(block, tmp_path):
    nameless = documented() | {"user": {"email": "nobody@example.com"}}
    payloads = [*many(20), nameless]
    fill(tmp_path / "store.db", payloads)
    source = {"source": url_of(tmp_path / "store.db")}

    messages = sync_inline(source | {"hash_key": "a secret"} | block["config"])

    records = [each["record"] for each in messages.all if each["type"] == "RECORD"]
    assert len(records) == 2 * len(payloads)
    given = {each["user"]["email"] for each in payloads}
    assert not [address for address in given if address in json.dumps(records)]
    hashes = {record["anonymous_id"] for record in records if record.get("anonymous_id")}
    assert len(hashes) == (block == HASHED)
