"""What the buttons of the live page do. All of it goes the way that webhooks go."""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.commands.dead_letters import find_dead_letter
from tap_vero_segment.collector.commands.replay import Replay
from tap_vero_segment.collector.endpoints.storing import keep
from tap_vero_segment.collector.live_page import dead_letters
from tap_vero_segment.inputs.intake import Calls, read_vero

if TYPE_CHECKING:
    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.reader_pool import ReaderPool

logger = logging.getLogger("vero-collector")

TEST: Final = "Test event of the live page"
"""The campaign's name of a test event, by which it is known in the warehouse."""


async def send_test_event(committer: Committer) -> None:
    """Take a webhook that says what it is; return when it is synced to disk.

    Raises:
        RefusedError: The collector takes nothing at present.
        StoreError: The store failed.
    """
    event = read_vero(msgspec.json.encode(_payload(int(time.time()))), times.now())
    await keep(Calls([event], [], 0), committer)


def _payload(now: int) -> dict[str, Any]:
    return {
        "type": "opened",
        "opened_at": now,
        "user": {"id": "test-event", "email": "test-event@example.com"},
        "campaign": {
            "id": "test-event",
            "type": "test",
            "name": TEST,
            "subject": "If you can read this, events arrive",
            "channel": "email",
            "sent_to": "test-event@example.com",
        },
        # Another one each time, as an event that came before is not stored again.
        "message_id": f"test-event.{secrets.token_hex(8)}@veromail.com",
        "user_agent": "vero-collector",
    }


async def delete(number: int, committer: Committer) -> str:
    """Delete a dead letter; return ``deleted``, or ``gone`` where there is none of that number.

    Raises:
        RefusedError: The collector takes nothing at present.
        StoreError: The store failed.
    """
    deleted = await dead_letters.delete([number], committer)
    dead_letters.log_deleted(deleted)
    return "deleted" if deleted else "gone"


async def replay(number: int, reader_pool: ReaderPool, committer: Committer) -> str:
    """Read a dead letter again, and store what it is now, in the thread that writes.

    Args:
        number: The dead letter.
        reader_pool: Read the store.
        committer: Writes it.

    Returns:
        What has become of it: ``stored``, ``known`` where its events were stored already,
        ``stays``, or ``gone`` where there is none of that number.

    Raises:
        RefusedError: The collector takes nothing at present.
        StoreError: The store failed.
        UserError: It cannot be opened.
    """
    kept = await reader_pool.read(lambda reader: find_dead_letter(reader, number))
    if kept is None:
        return "gone"

    def work(writer: Any) -> Replay:
        replaying = Replay(writer)
        replaying.read(kept)
        return replaying

    done = await committer.run(work)
    if done.stay:
        logger.warning("a dead letter stays: %s", next(iter(done.stay)))
        return "stays"
    return "stored" if done.new else "known"
