"""The private parts of uvicorn that connections are bounded with. Another release can lack them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http import flow_control, httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState

import tap_vero_segment.collector

PROTOCOL = ["_unset_keepalive_if_required", "on_message_begin", "on_header", "on_headers_complete"]
PROTOCOL += ["on_body", "on_message_complete", "on_response_complete", "shutdown"]
PROTOCOL += ["connection_made", "connection_lost", "data_received", "resume_writing"]
PROTOCOL_FIELDS = ["connections", "pipeline", "cycle", "flow", "parser", "scope", "headers", "url"]
PROTOCOL_FIELDS += ["timeout_keep_alive", "timeout_keep_alive_task", "server_state", "client"]
PROTOCOL_FIELDS += ["loop", "transport"]
SERVER = ["startup", "shutdown", "on_tick", "handle_exit", "capture_signals", "serve"]


@pytest.mark.parametrize("name", PROTOCOL)
def test_the_protocol_has(name):
    assert callable(getattr(HttpToolsProtocol, name))


def test_the_protocol_keeps_its_state_where_it_is_looked_for():
    async def made() -> HttpToolsProtocol:
        async def app(scope, receive, send):
            pass

        config = uvicorn.Config(app, interface="asgi3", ws="none", lifespan="off")
        return HttpToolsProtocol(config, ServerState(), {})

    protocol = asyncio.run(made())
    protocol.on_message_begin()

    assert [name for name in PROTOCOL_FIELDS if not hasattr(protocol, name)] == []
    assert {"default_headers", "connections"} <= vars(ServerState()).keys()


def test_a_cycle_is_one_request_with_its_response():
    attributes = RequestResponseCycle.__init__.__code__.co_names
    for name in ("response_started", "response_complete", "disconnected", "message_event"):
        assert name in attributes


def test_the_flow_of_a_connection_can_be_held():
    for name in ("pause_reading", "resume_reading", "pause_writing", "resume_writing", "drain"):
        assert callable(getattr(flow_control.FlowControl, name))
    assert httptools_impl.STATUS_LINE[503] == b"HTTP/1.1 503 Service Unavailable\r\n"
    # It asks for the body only when the application does, and stops reading beyond this.
    assert flow_control.HIGH_WATER_LIMIT == 65_536


@pytest.mark.parametrize("name", SERVER)
def test_the_server_has(name):
    assert callable(getattr(Server, name))


def test_no_other_module_uses_what_is_private():
    root = Path(tap_vero_segment.collector.__file__).parent
    using = {path.name for path in root.rglob("*.py") if "uvicorn" in path.read_text()}
    assert using <= {"connection_limits.py", "serve.py", "logs.py"}
