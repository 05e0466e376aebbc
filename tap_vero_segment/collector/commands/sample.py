"""``vero-collector sample``: a collector of its own, posted to as Vero would, and stopped again."""

from __future__ import annotations

import os
import random
import re
import secrets
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import requests

from tap_vero_segment.collector.settings import variable
from tap_vero_segment.errors import UserError
from tap_vero_segment.http_client import reason_of
from tap_vero_segment.stores.sqlite.backup import nobody_else

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


Payload = dict[str, Any]

FOLDER: Final = Path(".demo")
STORE_FILE: Final = FOLDER / "vero-events.db"
WAREHOUSE: Final = FOLDER / "warehouse.duckdb"
DEFAULT_STORE: Final = f"sqlite:///{STORE_FILE}"
"""Apart from the default store of a real collector, which a try-out must not touch."""

MALFORMED: Final = b'{"type": "opened", "user": {"id": 1'
"""What a sender posts whose connection or template broke off."""

_LISTENING: Final = re.compile(r"listening on (http://\S+)")
_TIMEOUT: Final = 30.0


def sample(store: str) -> str:
    """Fill a store through a real collector; return what was done, in a line or two.

    Args:
        store: The store's URL.

    Raises:
        UserError: The collector does not start, or does not take what it must.
    """
    token = secrets.token_urlsafe()
    with (
        running_collector(store, {"webhook_token": token}) as url,
        requests.Session() as session,
    ):
        done = post_sample(session, f"{url}/vero/{token}")
    return f"{done}\nThe events are in {store}."


def post_sample(session: requests.Session, endpoint: str) -> str:
    """Post a campaign and every documented payload; return what was done, in a line.

    Args:
        session: The sender's.
        endpoint: The URL that Vero would post to.

    Raises:
        UserError: The collector does not take what it must.
    """
    now = int(time.time())
    payloads = [*documented_payloads(now), *campaign_payloads(now)]
    for payload in payloads:
        post(session, endpoint, msgspec.json.encode(payload))
    post(session, endpoint, msgspec.json.encode(payloads[0]))
    post(session, endpoint, MALFORMED, expected=400)
    return f"Posted {len(payloads)} webhooks, one of them twice, and a malformed body."


def delete_demo() -> None:
    """Delete the store and the warehouse of the try-out before.

    Raises:
        UserError: Another process has the store open, or they cannot be deleted.
    """
    stores = [Path(f"{STORE_FILE}{end}") for end in ("", "-wal", "-shm", "-mark")]
    try:
        with nobody_else(STORE_FILE):
            for path in (*stores, WAREHOUSE, Path(f"{WAREHOUSE}.wal")):
                path.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot delete what is in {FOLDER}: {error.strerror}"
        raise UserError(msg) from error


def post(session: requests.Session, endpoint: str, body: bytes, *, expected: int = 200) -> None:
    """Post a webhook.

    Raises:
        UserError: The response is not the expected one, or there is none.
    """
    headers = {"Content-Type": "application/json"}
    try:
        response = session.post(endpoint, data=body, headers=headers, timeout=_TIMEOUT)
    except OSError as error:
        msg = f"the collector does not respond: {reason_of(error)}"
        raise UserError(msg) from error
    if response.status_code != expected:
        msg = f"the collector responded with {response.status_code} instead of {expected}"
        raise UserError(msg)


@contextmanager
def running_collector(store: str, given_secrets: dict[str, str], port: int = 0) -> Generator[str]:
    """Run ``vero-collector serve`` on this machine; give its URL, and stop it at the end.

    Args:
        store: The store's URL.
        given_secrets: Its secrets, by their names in the settings.
        port: The port; 0 takes a free one.

    Raises:
        UserError: It does not start.
    """
    command = [sys.executable, "-m", "tap_vero_segment.collector", "serve"]
    environment = {
        **os.environ,
        # A real collector's.
        variable("url"): "",
        variable("forward"): "",
        **{variable(name): secret for name, secret in given_secrets.items()},
    }
    with subprocess.Popen(  # noqa: S603  # nothing of the command comes from outside
        [*command, "--host", "127.0.0.1", "--port", str(port), "--store", store],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None  # noqa: S101  # it is a pipe
        said = []
        for line in process.stderr:
            said.append(line)
            listening = _LISTENING.search(line)
            if listening:
                break
        else:
            msg = "the collector did not start: " + "".join(said).strip()
            raise UserError(msg)
        # A full pipe would hold the collector up.
        reading = threading.Thread(target=process.stderr.read, daemon=True)
        reading.start()
        try:
            yield listening[1]
        finally:
            process.terminate()
            process.wait()
            reading.join()


RECIPIENTS: Final = 100
BOUNCED: Final = 4
OPENED: Final = 58
CLICKED: Final = 21
UNSUBSCRIBED: Final = 3

_SEED: Final = 2026
_HARD: Final = {
    "bounce_type": "hard",
    "bounce_code": 550,
    "bounce_message": "550 5.1.1 The email account that you tried to reach does not exist",
}
_SOFT: Final = {
    "bounce_type": "soft",
    "bounce_code": "452",
    "bounce_message": "452 4.2.2 The recipient's inbox is out of storage space",
}
_AGENTS: Final = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
)


def campaign_payloads(now: int) -> Iterator[Payload]:
    """Yield the events of a campaign that went out in the last hour, in the order of time.

    Args:
        now: The present time, in seconds since 1970; no event is later.
    """
    chance = random.Random(_SEED)  # noqa: S311  # believable, not secret
    payloads = [
        payload
        for number in range(1, RECIPIENTS + 1)
        for payload in story(number, now - 3600, now, chance)
    ]
    yield from sorted(payloads, key=lambda payload: payload[f"{payload['type']}_at"])


def story(number: int, start: int, now: int, chance: random.Random) -> Iterator[Payload]:
    """Yield what happens to one recipient's email.

    Args:
        number: The recipient, from 1 to :data:`RECIPIENTS`, which decides most of it.
        start: The email is sent so many seconds after this time, in seconds since 1970.
        now: Nothing happens later than a minute before this time.
        chance: Decides the rest.
    """
    sent_at = start + number
    message: Payload = {
        "user": {"id": 1000 + number, "email": f"recipient{number}@example.com"},
        "campaign": {
            "id": 20_261,
            "type": "newsletter",
            "name": "Autumn collection",
            "subject": "The autumn collection is here \N{MAPLE LEAF}",
            "variation": "A" if number % 2 else "B",
            "channel": "email",
            "sent_to": f"recipient{number}@example.com",
            "locale": "en-US",
            "tags": "newsletter, autumn",
        },
        "message_id": f"{now}.{number}.20261@veromail.com",
    }
    yield {"type": "sent", "sent_at": sent_at, **message}
    if number <= BOUNCED:
        reason = _HARD if number % 2 else _SOFT
        yield {"type": "bounced", "bounced_at": sent_at + 2, **reason, **message}
        return
    yield {
        "type": "delivered",
        "delivered_at": sent_at + 2,
        "sender_ip": "198.51.100.7",
        **message,
    }
    if number > BOUNCED + OPENED:
        return
    opened_at = chance.randint(sent_at + 10, now - 120)
    agent = {"user_agent": chance.choice(_AGENTS)}
    yield {"type": "opened", "opened_at": opened_at, **agent, **message}
    if number <= BOUNCED + CLICKED:
        clicked_at = opened_at + chance.randint(2, 60)
        yield {"type": "clicked", "clicked_at": clicked_at, **agent, **message}
    elif number <= BOUNCED + CLICKED + UNSUBSCRIBED:
        yield {
            "type": "unsubscribed",
            "unsubscribed_at": opened_at + 30,
            "user": message["user"],
            "campaign": {
                "campaign_title": message["campaign"]["name"],
                "message_id": message["message_id"],
                "email_subject": message["campaign"]["subject"],
                "variation_name": message["campaign"]["variation"],
                "channel": "email",
            },
        }
    elif number == BOUNCED + CLICKED + UNSUBSCRIBED + 1:
        yield {"type": "complained", "complained_at": opened_at + 45, **message}


def documented_payloads(now: int) -> list[Payload]:
    """Return a payload of each of Vero's twelve types.

    The shapes and values are those of help.getvero.com,
    ``/vero-1/integrations/setting-up-webhooks`` and
    ``/vero-2/integrations/setting-up-reporting-webhooks``, as far as they show any; the payload of
    ``complained`` and ``failed`` is documented nowhere and has the shape of the others.

    Args:
        now: The time of the events, in seconds since 1970.
    """
    user = {"id": 123, "email": "steve@example.com"}
    message = {
        "user": user,
        "campaign": {
            "id": 987,
            "type": "transactional",
            "name": "Order confirmation",
            "subject": "Your order is being processed!",
            "trigger-event": "purchased item",
            "permalink": "http://app.getvero.com/view/1/341d64944577ac1f70f560e37db54a25",
            "variation": "Variation A",
            "group": "Order confirmation - Email 6",
            "channel": "email",
            "sent_to": "steve@example.com",
            "locale": "en-US",
        },
        "message_id": f"{now}.1.1B72E094173067F0F@veromail.com",
        "event": {"name": "purchased item", "triggered_at": now - 30, "data": {"order": 17}},
    }
    browser = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15"
    return [
        {"type": "sent", "sent_at": now, **message},
        {"type": "delivered", "delivered_at": now, "sender_ip": "198.51.100.7", **message},
        {"type": "opened", "opened_at": now, "user_agent": browser, **message},
        {"type": "clicked", "clicked_at": now, "user_agent": browser, **message},
        {"type": "failed", "failed_at": now, **message},
        {
            "type": "bounced",
            "bounced_at": now,
            "bounce_type": "hard",
            "bounce_code": "521",
            "bounce_message": "521 5.2.1 : (CON:B1)",
            **message,
        },
        {"type": "converted", **message},
        {
            "type": "unsubscribed",
            "unsubscribed_at": now,
            "user": user,
            "campaign": {
                "campaign_title": "Order confirmation",
                "series_title": "Orders",
                "message_id": message["message_id"],
                "email_subject": "Your order is being processed!",
                "variation_name": "Variation A",
                "template": "default",
                "channel": "email",
            },
        },
        {"type": "resubscribed", "user": user},
        {"type": "complained", "complained_at": now, **message},
        {"type": "user_created", "user": {**user, "first_name": "Steve", "plan": "pro"}},
        {
            "type": "user_updated",
            "action": "update",
            "user": user,
            "changes": {"_tags": {"add": ["customer"], "remove": ["lead"]}},
        },
    ]
