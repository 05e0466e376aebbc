"""SQL about recipients and opens, as the pages have it, beside plain loops."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest

from tap_vero_segment.report import funnel
from tests.support import docs
from tests.support.funnel import DuckDB, PostgreSQL, channel_of, event, load

STATE, SUPPRESSED, BOUNCED, STORY = docs.blocks("reports/recipients.md", "sql")
MARKED, INSTEAD = docs.blocks("reports/machine-opens.md", "sql")
START = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())
CHANGES = {
    "email_resubscribed": "subscribed",
    "email_unsubscribed": "unsubscribed",
    "email_bounced": "bounced",
    "email_marked_as_spam": "spam",
}
STRICTEST = ("spam", "bounced", "unsubscribed", "subscribed")
KINDS = ("sent", "delivered", "opened", "clicked", "unsubscribed", "resubscribed", "complained")


def ask(warehouse: DuckDB | PostgreSQL, statement: str) -> list[tuple[Any, ...]]:
    if isinstance(warehouse, PostgreSQL):
        warehouse.set_timezone("UTC")
    return warehouse.run(statement)


def at(number: int) -> int:
    return START + number


def everything(chance: random.Random) -> list[dict[str, Any]]:
    """Events of each kind at few moments, so that many are at the same time."""
    found = []
    for number in range(400):
        kind = chance.choice((*KINDS, "bounced", "bounced"))
        person = chance.randrange(30)
        user: dict[str, Any] = {"id": person, "email": f"Person{person}@Example.com"}
        if person % 7 == 0:
            del user["id"]
        campaign = {"id": 1, "channel": chance.choice((None, "Email ", "push"))}
        fields: dict[str, Any] = {"user": user, "campaign": campaign, "n": number}
        if kind == "bounced":
            fields["bounce_type"] = chance.choice(("hard", " Hard", "soft", None))
        if kind == "unsubscribed" and number % 2:
            del fields["campaign"]
        found.append(event(kind, at(chance.randrange(12)), **fields))
    return [*found, event("sent", at(0)), event("complained", at(5))]


def of_nobody() -> list[dict[str, Any]]:
    """An event of each kind that is nobody's, so that there are all tables."""
    return [event(kind, at(0)) for kind in (*KINDS, "bounced")]


def states(records: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Each recipient's state and since when, by plain loops."""
    seen: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for record in records:
        address = record["context_traits_email"]
        person = record["user_id"] or record["anonymous_id"] or (address and address.lower())
        if person is None or channel_of(record) != "email":
            continue
        state = CHANGES.get(record["event"])
        if state == "bounced" and (record["bounce_type"] or "").strip().lower() != "hard":
            state = None
        seen[person].append((record["timestamp"], state))
    found = {}
    for person, events in seen.items():
        changes = [(moment, state) for moment, state in events if state]
        if not changes:
            found[person] = "subscribed", min(moment for moment, _ in events)
            continue
        last = max(moment for moment, _ in changes)
        now = next(each for each in STRICTEST if (last, each) in changes)
        ended = max((moment for moment, state in changes if state != now), default="")
        found[person] = (
            now,
            min(moment for moment, state in changes if state == now and moment >= ended),
        )
    return found


def text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


@pytest.mark.parametrize("seed", range(3))
def test_each_recipient_has_the_state_of_plain_loops(warehouse, seed):
    records = everything(random.Random(seed))
    load(warehouse, records + records[::3])
    expected = states(records)

    ask(warehouse, STATE)
    rows = ask(warehouse, "SELECT recipient, state, since, email FROM vero.subscription_state")
    suppressed = ask(warehouse, SUPPRESSED)

    assert {person: (state, text(since)) for person, state, since, _ in rows} == expected
    assert len(rows) == len(expected)
    assert {state for state, _ in expected.values()} == set(STRICTEST)
    assert all(email.startswith("Person") for *_, email in rows)
    assert {(person, state) for _, person, state, _ in suppressed} == {
        (person, state) for person, (state, _) in expected.items() if state != "subscribed"
    }


def test_a_state_lasts_since_its_first_event(warehouse):
    user = {"id": 1, "email": "a@example.com"}
    kinds = ("sent", "unsubscribed", "unsubscribed", "opened", "resubscribed", "clicked")
    story = [event(kind, at(number), user=user) for number, kind in enumerate(kinds)]
    others = [
        event("bounced", at(1), user={"id": 2}, bounce_type="soft"),
        event("bounced", at(2), user={"id": 2}, bounce_type="hard"),
        event("bounced", at(9), user={"id": 2}, bounce_type="soft"),
        event("complained", at(3), user={"id": 3}),
        event("unsubscribed", at(3), user={"id": 3}),
        event("delivered", at(0), user={"id": 4}, campaign={"channel": "push"}),
    ]
    load(warehouse, [*story[:4], *others, *of_nobody()])
    load(warehouse, [event("resubscribed", at(0), user={"id": 5})])
    ask(warehouse, STATE)

    def found() -> dict[str, tuple[str, int]]:
        rows = ask(warehouse, "SELECT recipient, state, since FROM vero.subscription_state")
        return {person: (state, int(text(since)[17:19])) for person, state, since in rows}

    before = found()
    load(warehouse, story[4:])

    others_found = {"2": ("bounced", 2), "3": ("spam", 3), "5": ("subscribed", 0)}
    assert before == {"1": ("unsubscribed", 1)} | others_found
    assert found() == {"1": ("subscribed", 4)} | others_found


def test_who_bounced_and_one_recipients_story(warehouse):
    steve = {"id": 123, "email": "Steve@GetVero.com"}
    bounce = {"bounce_type": "soft", "bounce_code": 421, "bounce_message": "later"}
    hard = {"bounce_type": "hard", "bounce_code": "550", "bounce_message": "unknown"}
    records = [
        event("sent", at(0), user=steve, campaign={"name": "A"}),
        event("bounced", at(1), user=steve, **bounce),
        event("bounced", at(2), user=steve, **hard),
        event("bounced", at(3), user={"id": 5, "email": "b@example.com"}, **bounce),
        event("delivered", at(4), user={"id": 5, "email": "b@example.com"}),
        event("bounced", at(5), user={"id": 6}, campaign={"channel": "push"}, **hard),
        *(event(kind, at(6), user={"id": 9}) for kind in KINDS if kind != "resubscribed"),
    ]
    load(warehouse, records + records)

    bounced = ask(warehouse, BOUNCED)
    story = ask(warehouse, STORY)

    assert [(row[0], row[1], row[2], *row[4:]) for row in bounced] == [
        ("5", "b@example.com", 1, "soft", "421", "later", True),
        ("123", "Steve@GetVero.com", 2, "hard", "550", "unknown", False),
    ]
    assert [row[1:3] for row in story] == [
        ("Email Sent", "A"),
        ("Email Bounced", None),
        ("Email Bounced", None),
    ]


AGENTS = {
    "Mozilla/5.0": ("apple_mail_privacy", None),
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0": ("gmail_prefetch", None),
    "python-requests/2.32": ("program", None),
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)": (
        None,
        "google",
    ),
    "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html": (None, "yahoo"),
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_5)": (None, None),
    None: (None, None),
}


def test_opens_by_machines_are_marked_and_none_is_left_out(warehouse):
    campaign = {"id": 1, "name": "A"}
    records = []
    for number, agent in enumerate(AGENTS):
        same = {"message_id": f"m{number}", "campaign": campaign, "user": {"id": number}}
        records += [
            event("delivered", at(0), **same),
            event("opened", at(3_600), user_agent=agent, **same),
        ]
    soon = {"campaign": campaign, "user": {"id": 99}, "user_agent": "Mozilla/5.0 (Macintosh)"}
    records += [event("delivered", at(10), message_id=name, **soon) for name in ("x", "y", "z")]
    records += [
        event("opened", moment, message_id=name, **soon)
        for name, moment in (("x", at(15)), ("y", at(16)), ("z", at(8)), ("unknown", at(0)))
    ]
    records += [event(kind, at(0), user={"id": 0}) for kind in (*KINDS, "bounced")]
    load(warehouse, records)

    ask(warehouse, MARKED)
    rows = ask(
        warehouse,
        "SELECT context_user_agent, machine_open, image_proxy, email_id"
        " FROM vero.email_opened_marked",
    )
    whole = ask(warehouse, funnel.SQL)
    instead = funnel.SQL.replace("FROM vero.email_opened AS t\n", INSTEAD)
    fewer = ask(warehouse, instead)

    marked = {
        agent: (machine, proxy) for agent, machine, proxy, name in rows if name and name[0] == "m"
    }
    assert marked == AGENTS
    assert {name: machine for _, machine, _, name in rows if name and name[0] != "m"} == {
        "x": "soon",
        "y": None,
        "z": "soon",
        "unknown": None,
    }
    assert len(rows) == len(AGENTS) + 5
    opened = funnel.COLUMNS.index("opened")
    (all_opens,) = (row[opened] for row in whole if row[0] == "1" and row[2] is None)
    (by_people,) = (row[opened] for row in fewer if row[0] == "1" and row[2] is None)
    assert (all_opens, by_people) == (11, 6)
