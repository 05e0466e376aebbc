"""The collector against its own OpenAPI document, and the document against the collector."""

from __future__ import annotations

import asyncio
import hmac
import http.client
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from jsonschema import Draft202012Validator
from requests.auth import AuthBase, HTTPBasicAuth
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.pytest.lazy import get_all_tests
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tap_vero_segment.collection import BY_EVENT, BY_STREAM, BY_VERO_TYPE
from tap_vero_segment.collector.app import VERO, openapi_document
from tap_vero_segment.collector.endpoints import events, tracking
from tap_vero_segment.collector.live_page.views import STATIC_FILES
from tap_vero_segment.collector.searching import MAX_VALUE
from tap_vero_segment.limits import MAX_BODY, MAX_CALL, MAX_CALLS, MAX_FORM
from tests.support.asgi import running
from tests.support.collector import (
    READ_TOKEN,
    SEGMENT_SECRET,
    WEBHOOK_TOKEN,
    WRITE_KEY,
    Collector,
)
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented
from tests.support.rounds import WEEKLY, by_rounds, rounds
from tests.support.store import NobodyErased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
]
EXAMPLES = rounds(15, least=4)
"""For each operation, with the right secrets and again without, besides the systematic ones."""
METHODS = {"get", "head", "post"}

CONFIG = SchemathesisConfig.from_dict(
    {"generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"}}
)
SCHEMA = schemathesis.openapi.from_dict(openapi_document(), config=CONFIG)


def operations() -> Iterator[str]:
    """Of those described alike, as GET and HEAD are or /v1/p and /v1/page, one is enough."""
    described = set()
    for path, methods in openapi_document()["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                names = ("operationId", "summary")
                kind = json.dumps([operation[key] for key in operation if key not in names])
                if WEEKLY or kind not in described:
                    yield f"{method.upper()} {path}"
                described.add(kind)


OPERATIONS = list(operations())


def try_out(operation: str, test: Callable[[schemathesis.Case], None]) -> None:
    """Run a test with the cases of an operation.

    ``SCHEMA.parametrize()`` makes them while tests are collected, in each of pytest's processes,
    which takes seconds.
    """
    [made] = get_all_tests(
        schema=SCHEMA.include(name=operation), test_func=test, settings=None, given_kwargs=None
    )
    made.ok()[1]()


class RightSecrets(AuthBase):
    """Puts the right secret into whatever Schemathesis has made up."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        assert request.url is not None
        scheme, _, rest = request.url.partition("://")
        host, _, path = rest.partition("/")
        if path.startswith("vero/"):
            request.url = f"{scheme}://{host}/vero/{WEBHOOK_TOKEN}"
        elif path.startswith("segment"):
            body = request.body or b""
            body = body.encode() if isinstance(body, str) else body
            signature = hmac.new(SEGMENT_SECRET.encode(), body, "sha1").hexdigest()
            request.headers["X-Signature"] = signature
        elif path.startswith("v1/events"):
            request.headers["Authorization"] = f"Bearer {READ_TOKEN}"
        elif path.startswith("v1/"):
            return HTTPBasicAuth(WRITE_KEY, "")(request)
        return request


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


@pytest.fixture(scope="module")
def trusted() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.auth = RightSecrets()
        yield session


@pytest.fixture(scope="module")
def stranger() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def test_the_document_is_one_and_is_served(shared):
    response = requests.get(f"{shared.url}/openapi.json", timeout=30)

    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == openapi_document()
    SCHEMA.validate()


class NoStore(NobodyErased):
    def close(self):
        pass


def test_the_document_has_every_endpoint():
    async def scenario():
        async with running(NoStore) as app:
            # Nothing else knows them all.
            cold = {route.path_format.partition("{")[0] for route in app._router.routes}  # noqa: SLF001
            return {*app._inputs, VERO} | cold  # noqa: SLF001

    described = {path.partition("{")[0] for path in openapi_document()["paths"]}
    # The same endpoints with other slashes, for clients that cannot do better.
    others = {path for path in tracking.PATHS if path != f"/{path.strip('/')}"}
    assert described == asyncio.run(scenario()) - others


def test_the_figures_and_names_of_the_document_are_those_of_the_code():
    document = openapi_document()
    paths, schemas = document["paths"], document["components"]["schemas"]
    limit = paths["/v1/events"]["get"]["parameters"][1]["schema"]
    search = {
        each["name"]: each["schema"] for each in paths["/v1/events/search"]["get"]["parameters"]
    }
    text = json.dumps(document)

    assert (limit["maximum"], limit["default"]) == (events.MAX_LIMIT, events.DEFAULT_LIMIT)
    assert (*search,) == events.SEARCHED
    assert search["limit"] == limit
    assert search["recipient"]["maxLength"] == MAX_VALUE
    assert search["collection"]["enum"] == [*BY_STREAM]
    assert schemas["Batch"]["properties"]["batch"]["maxItems"] == MAX_CALLS
    assert all(f"{bytes_} bytes" in text for bytes_ in (MAX_BODY, MAX_CALL, MAX_FORM))
    assert schemas["Webhook"]["properties"]["type"]["examples"] == list(BY_VERO_TYPE)
    assert schemas["Event"]["properties"]["event"]["examples"] == list(BY_EVENT)
    assert paths["/live"]["get"]["parameters"][0]["schema"]["enum"] == ["", *BY_STREAM]
    assert paths["/static/{name}"]["get"]["parameters"][0]["schema"]["enum"] == [*STATIC_FILES]


@by_rounds
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_collector_does_as_the_document_says_for_those_who_may(operation, shared, trusted):
    def whatever_is_made_up(case):
        if isinstance(case.body, dict) and "writeKey" in case.body:
            case.body["writeKey"] = WRITE_KEY
        case.call_and_validate(base_url=shared.url, session=trusted, checks=CHECKS)

    try_out(operation, whatever_is_made_up)


@by_rounds
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_collector_does_as_the_document_says_for_those_who_may_not(operation, shared, stranger):
    def whatever_is_made_up(case):
        checks = [*CHECKS, ignored_auth]
        case.call_and_validate(base_url=shared.url, session=stranger, checks=checks)

    try_out(operation, whatever_is_made_up)


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/vero/{webhook_token}", "POST", {"type": "sent", "user": {"id": 1}}, 200),
        ("/vero/{webhook_token}", "POST", {"text": "x" * MAX_BODY}, 413),
        ("/v1/track", "POST", {"event": "Email Sent", "userId": "1"}, 200),
        ("/v1/track", "POST", {"text": "x" * MAX_CALL}, 400),
        ("/v1/batch", "POST", {"batch": [{}] * (MAX_CALLS + 1)}, 400),
        ("/v1/import", "POST", {"batch": [], "text": "x" * MAX_BODY}, 413),
        ("/segment", "POST", [{"event": "Email Opened", "messageId": "m1"}], 200),
        ("/segment", "POST", {"text": "x" * MAX_BODY}, 413),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_limits_are_those_of_the_document(shared, trusted, path, method, body, status):
    parameters = {"webhook_token": WEBHOOK_TOKEN} if path.startswith("/vero") else {}
    case = SCHEMA[path][method].Case(
        body=body, path_parameters=parameters, media_type="application/json"
    )

    response = case.call_and_validate(base_url=shared.url, session=trusted, checks=CHECKS)

    assert response.status_code == status


def test_what_is_read_is_what_the_document_calls_an_event(tmp_path):
    with Collector(tmp_path) as collector:
        for vero_type in (*EMAIL_TYPES, *OTHER_TYPES):
            assert collector.post(documented(vero_type)).status_code == 200
        lines = collector.get("/v1/events").content.splitlines()

    event = Draft202012Validator(openapi_document() | {"$ref": "#/components/schemas/Event"})
    assert len(lines) == len(EMAIL_TYPES) + len(OTHER_TYPES)
    for line in lines:
        event.validate(json.loads(line))


def test_the_servers_own_refusal_is_in_the_document_too(shared):
    address = urlsplit(shared.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.putrequest("GET", "/health", skip_host=True)
    connection.putheader("Content-Length", "no number")
    connection.endheaders()
    response = connection.getresponse()

    documented_types = openapi_document()["components"]["responses"]["400"]["content"]
    assert response.status == 400
    assert (response.getheader("content-type") or "").partition(";")[0] in documented_types
    connection.close()
