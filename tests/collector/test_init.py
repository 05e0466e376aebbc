from __future__ import annotations

import base64
import os
import re
import stat
from importlib.metadata import version
from os import open as os_open

import pytest
import requests
from dotenv import dotenv_values

from tap_vero_segment.collector.commands.init import write_env
from tap_vero_segment.collector.settings import check_url, url_warning
from tap_vero_segment.errors import SettingError, UserError
from tests.support.collector import SECRETS, Collector, run_collector
from tests.support.payloads import documented
from tests.support.watching import Visitor

NAMES = list(SECRETS)


def printed_url(output: str) -> str:
    [url] = re.findall(r"^\s*(https?://\S+)$", output, re.MULTILINE)
    return url


def test_init_writes_secrets_that_only_the_owner_can_read(tmp_path):
    done = run_collector("init", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    values = dotenv_values(tmp_path / ".env")
    for name in NAMES:
        value = values[name] or ""
        assert len(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))) == 32
    assert len(set(values.values())) == len(values)
    assert printed_url(done.stdout).endswith(f"/vero/{values[NAMES[0]]}")
    assert values[NAMES[1]] not in done.stdout


def test_no_two_collectors_have_the_same_secrets(tmp_path):
    secrets = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run_collector("init", cwd=tmp_path / name)
        secrets |= set(dotenv_values(tmp_path / name / ".env").values())

    assert len(secrets) == 2 * len(NAMES)


def test_a_second_init_changes_nothing_and_prints_the_same_url(tmp_path):
    first = run_collector("init", cwd=tmp_path)
    content = (tmp_path / ".env").read_bytes()

    second = run_collector("init", cwd=tmp_path)

    assert second.returncode == 0, second.stderr
    assert (tmp_path / ".env").read_bytes() == content
    assert printed_url(second.stdout) == printed_url(first.stdout)


def test_an_env_file_of_something_else_is_left_alone(tmp_path):
    content = b"DATABASE_URL=postgresql://localhost\n"
    (tmp_path / ".env").write_bytes(content)

    done = run_collector("init", cwd=tmp_path)

    assert done.returncode == 1
    assert (tmp_path / ".env").read_bytes() == content
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert "VERO_COLLECTOR_WEBHOOK_TOKEN" in line


def test_an_env_file_that_is_no_text_is_told_in_a_line(tmp_path):
    (tmp_path / ".env").write_bytes(b"VERO_COLLECTOR_READ_TOKEN=\xff\xfe\n")

    for command in ("init", "serve", "status"):
        done = run_collector(command, cwd=tmp_path)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert ".env" in line


def test_an_env_file_that_cannot_be_written_is_told_in_a_line(tmp_path):
    (tmp_path / ".env").symlink_to(tmp_path / "missing" / "folder")

    done = run_collector("init", cwd=tmp_path)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "missing").exists()


def test_the_url_is_told_as_vero_will_reach_it(tmp_path):
    done = run_collector("init", "--url", "https://hooks.example.com/", cwd=tmp_path)

    token = dotenv_values(tmp_path / ".env")[NAMES[0]]
    assert printed_url(done.stdout) == f"https://hooks.example.com/vero/{token}"


def test_serve_takes_the_secrets_that_init_wrote(tmp_path):
    url = printed_url(run_collector("init", "--url", "http://HOST", cwd=tmp_path).stdout)
    read_token = dotenv_values(tmp_path / ".env")[NAMES[1]]

    with Collector(tmp_path, env={}) as collector:
        posted = requests.post(
            url.replace("http://HOST", collector.url), json=documented(), timeout=30
        )
        read = collector.get("/v1/events", headers={"Authorization": f"Bearer {read_token}"})

    assert posted.status_code == 200
    assert len(read.content.splitlines()) == 1


def test_the_environment_wins_over_the_env_file(tmp_path):
    run_collector("init", cwd=tmp_path)
    in_file = dotenv_values(tmp_path / ".env")

    with Collector(tmp_path, env={NAMES[0]: "from-the-environment"}) as collector:
        assert collector.post(documented(), token=in_file[NAMES[0]]).status_code == 404
        assert collector.post(documented(), token="from-the-environment").status_code == 200
        headers = {"Authorization": f"Bearer {in_file[NAMES[1]]}"}
        assert collector.get("/v1/events", headers=headers).status_code == 200


@pytest.mark.parametrize("token", ["a/b", "100%41", "grüße", "a#b?c=d e"])
def test_a_token_of_the_users_own_is_told_as_it_stands_in_a_url(tmp_path, token):
    (tmp_path / ".env").write_text(f"{NAMES[0]}='{token}'\n", encoding="utf-8")

    url = printed_url(run_collector("init", "--url", "http://HOST", cwd=tmp_path).stdout)

    with Collector(tmp_path, env={}) as collector:
        url = url.replace("http://HOST", collector.url)
        assert requests.post(url, json=documented(), timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("collector.example", "does not begin with https://"),
        ("collector.example:8321", "does not begin with https://"),
        ("//collector.example", "does not begin with https://"),
        ("ftp://collector.example", "does not begin with https://"),
        ("https://", "does not name a host"),
        ("https:///vero", "does not name a host"),
        ("https://a b.example", "does not name a host"),
        ("https://[::1", "is not a URL"),
        ("https://collector.example:port", "is not a URL"),
        ("https://someone:hidden@collector.example", "contains a user name"),
        ("https://collector.example?hidden=1", "contains a query or a fragment"),
        ("https://collector.example/#hidden", "contains a query or a fragment"),
        ("https://collector.example\n", "ends with a line end"),
        (" https://collector.example", "a blank stands"),
        ("'https://collector.example'", "a quotation mark stands"),
    ],
)
def test_a_url_that_vero_could_not_post_to_is_refused(url, said):
    with pytest.raises(SettingError, match=f"--url: .*{re.escape(said)}") as raised:
        check_url(url, "--url")
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "warning"),
    [
        ("https://collector.example/hooks/", None),
        ("https://collector.example:8443", None),
        ("HTTPS://collector.example", None),
        ("http://localhost:8321", "this machine only"),
        ("https://localhost", "this machine only"),
        ("http://127.0.0.1:8321", "this machine only"),
        ("http://0.0.0.0:8321", "this machine only"),
        ("http://[::1]:8321", "this machine only"),
        ("http://collector.example", "unencrypted"),
        ("http://192.0.2.1:8321", "unencrypted"),
    ],
)
def test_a_url_that_vero_should_not_post_to_is_warned_of(tmp_path, url, warning):
    check_url(url, "--url")
    found = url_warning(url)
    assert found is warning or warning in found
    done = run_collector("init", "--url", url, cwd=tmp_path)
    assert done.returncode == 0
    assert (found or "") in done.stderr
    assert bool(done.stderr) is bool(found)


def test_the_url_is_kept_where_serve_and_the_page_find_it(tmp_path):
    run_collector("init", cwd=tmp_path)
    secrets = {name: dotenv_values(tmp_path / ".env")[name] for name in NAMES}
    (tmp_path / ".env").chmod(0o600)

    for url in ("https://old.example", "https://hooks.example/vero-events/"):
        done = run_collector("init", "--url", url, cwd=tmp_path)
        assert "the secrets stay" in done.stdout
    kept = dotenv_values(tmp_path / ".env")
    assert kept == secrets | {"VERO_COLLECTOR_URL": "https://hooks.example/vero-events"}
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    token = secrets[NAMES[0]]
    again = run_collector("init", cwd=tmp_path)
    assert printed_url(again.stdout) == f"https://hooks.example/vero-events/vero/{token}"

    with Collector(tmp_path, env={}) as collector, Visitor(collector) as visitor:
        visitor.log_in(secrets[NAMES[1]])
        page = visitor.see().text
    assert f"https://hooks.example/vero-events/vero/{token}" in page
    assert "data-base" not in page
    assert "url-warning" not in page
    assert "is https://hooks.example/vero-events/vero/TOKEN, with" in collector.log()
    assert token not in collector.log()


def test_a_page_whose_url_vero_cannot_reach_says_so(tmp_path):
    with Collector(tmp_path) as collector, Visitor(collector) as visitor:
        visitor.log_in(SECRETS[NAMES[1]])
        assert "this machine only: set VERO_COLLECTOR_URL" in visitor.see().text
    with Collector(
        tmp_path, env=SECRETS | {"VERO_COLLECTOR_URL": "http://hooks.example"}
    ) as collector:
        assert "WARNING VERO_COLLECTOR_URL: the URL begins with http://" in collector.log()


def test_a_url_of_the_environment_is_named_by_its_variable(tmp_path):
    env = SECRETS | {"VERO_COLLECTOR_URL": "collector.example"}
    done = run_collector("serve", cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert "VERO_COLLECTOR_URL: it does not begin with https://" in done.stderr


def test_a_refused_url_writes_nothing(tmp_path):
    done = run_collector("init", "--url", "collector.example", cwd=tmp_path)

    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("vero-collector: --url: it does not begin with https://")
    assert not (tmp_path / ".env").exists()


def test_a_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch):
    monkeypatch.setattr("os.open", lambda *_: os_open("/dev/full", os.O_WRONLY))
    path = tmp_path / ".env"
    path.write_text("", encoding="utf-8")  # which is what the real os.open would have made

    with pytest.raises(UserError, match="No space left"):
        write_env(path)
    assert not path.exists()


def test_a_meltano_project_is_written_once(tmp_path):
    first = run_collector("init", "--meltano", cwd=tmp_path)
    assert "Wrote meltano.yml." in first.stdout
    assert "uvx meltano run vero-to-duckdb" in first.stdout
    text = (tmp_path / "meltano.yml").read_text(encoding="utf-8")
    assert f"pip_url: tap-vero-segment[duckdb]=={version('tap-vero-segment')}\n" in text

    (tmp_path / "meltano.yml").write_text("mine", encoding="utf-8")
    second = run_collector("init", "--meltano", cwd=tmp_path)
    assert second.returncode == 0
    assert "meltano.yml is there already: it was not changed." in second.stdout
    assert (tmp_path / "meltano.yml").read_text(encoding="utf-8") == "mine"


def test_init_ends_with_the_next_steps(tmp_path):
    done = run_collector("init", cwd=tmp_path)
    assert [line[:4] for line in done.stdout.splitlines()[-4:]] == ["Next", "  1.", "  2.", "  3."]
    assert "vero-collector init --meltano" in done.stdout
