"""A collector of its own, posted to over HTTP as Vero would, and stopped again."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import requests

from tap_vero_segment.collector.sample.campaign import campaign_payloads
from tap_vero_segment.collector.sample.documented import documented_payloads
from tap_vero_segment.collector.settings import variable
from tap_vero_segment.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Generator

DEFAULT_STORE: Final = "sqlite:///.demo/vero-events.db"
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
    now = int(time.time())
    payloads = [*documented_payloads(now), *campaign_payloads(now)]
    token = secrets.token_urlsafe()
    with _collector(store, token) as url, requests.Session() as session:
        endpoint = f"{url}/vero/{token}"
        for payload in payloads:
            _post(session, endpoint, msgspec.json.encode(payload), expected=200)
        _post(session, endpoint, msgspec.json.encode(payloads[0]), expected=200)
        _post(session, endpoint, MALFORMED, expected=400)
    return (
        f"Posted {len(payloads)} webhooks, one of them twice, and a malformed body.\n"
        f"The events are in {store}."
    )


def _post(session: requests.Session, endpoint: str, body: bytes, *, expected: int) -> None:
    response = session.post(
        endpoint, data=body, headers={"Content-Type": "application/json"}, timeout=_TIMEOUT
    )
    if response.status_code != expected:
        msg = f"the collector answered {response.status_code} instead of {expected}"
        raise UserError(msg)


@contextmanager
def _collector(store: str, token: str) -> Generator[str]:
    """Run ``vero-collector serve`` on a free port; give its URL, and stop it at the end."""
    command = [sys.executable, "-m", "tap_vero_segment.collector", "serve"]
    environment = {**os.environ, variable("webhook_token"): token}
    with subprocess.Popen(  # noqa: S603  # nothing of the command comes from outside
        [*command, "--host", "127.0.0.1", "--port", "0", "--store", store],
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
        try:
            yield listening[1]
        finally:
            process.terminate()
            process.communicate()
