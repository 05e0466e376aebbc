"""Who may ask, by address."""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector.connection_limits import unmapped
from tap_vero_segment.collector.endpoints import tracking
from tap_vero_segment.collector.responses import HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from tap_vero_segment.collector.app import App
    from tap_vero_segment.collector.error_reasons import ErrorReason
    from tap_vero_segment.collector.settings import Network

FOR_ALL: Final = frozenset({"/health", "/ready"})
"""What monitors and load balancers ask, which nobody lists."""


class AllowList:
    """Responds with 403 to clients that are not on the list, and hands the others on.

    Args:
        app: What they ask.
        networks: The list.
        count: Called with the reason of each refusal.
    """

    def __init__(
        self, app: App, networks: Sequence[Network], count: Callable[[ErrorReason], None]
    ) -> None:
        self._app = app
        self._count = count
        self._networks = networks
        self._is_allowed = functools.lru_cache(maxsize=4096)(self._is_listed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        host: str = (scope.get("client") or ("",))[0]
        if scope["path"] in FOR_ALL or self._is_allowed(host):
            await self._app(scope, receive, send)
        else:
            refusal = HTTPError(403, "not from this address")
            self._count(refusal.reason)
            response = refusal.response()
            if scope["path"] in tracking.PATHS:
                response.headers.update(tracking.ALLOW_ORIGIN)
            await response(scope, receive, send)

    def _is_listed(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(unmapped(host))
        except ValueError:  # what a proxy has forwarded can be anything
            return False
        return any(address in network for network in self._networks)
