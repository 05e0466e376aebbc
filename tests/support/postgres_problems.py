"""URLs of databases that cannot be used, each with a password, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.postgres import Postgres

SECRET = "secret-of-the-url"

PROBLEMS = {
    "no server": ("vero:{secret}@127.0.0.1:1/x", "cannot connect"),
    "no such host": ("vero:{secret}@no-such-host.invalid/x", "cannot connect"),
    "no such user": ("nobody:{secret}@{address}/x", 'role "nobody" does not exist'),
    "no such database": ("vero:{secret}@{address}/nowhere", 'database "nowhere" does not exist'),
    "a port that is none": ("vero:{secret}@127.0.0.1:port/x", "cannot connect"),
    "an @ in the password": ("vero:p@{secret}@{address}/x", "%40"),
    "a / in the password": ("vero:1/{secret}@{address}/x", "%2F"),
    "a : after an @ in the password": ("vero:1@2:{secret}@{address}/x", "%40"),
    "a / after an @ in the password": ("vero:1@2/{secret}@{address}/x", "%40"),
    "an @ after a ? in the password": ("vero:1?2@{secret}@{address}/x", "%40"),
    "a % in the password": ("vero:%{secret}@{address}/x", "libpq can read"),
    "no such option": ("vero:{secret}@{address}/x?passwort={secret}", "libpq can read"),
}


def problem_url(server: Postgres, problem: str) -> str:
    rest = PROBLEMS[problem][0].format(secret=SECRET, address=f"127.0.0.1:{server.port}")
    return f"postgresql://{rest}"
