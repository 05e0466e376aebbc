from __future__ import annotations

import random
import sys
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.archive.listing import list_objects
from tap_vero_segment.archive.objects import CHUNK, Objects, ObjectStoreError, ReplacedError
from tap_vero_segment.errors import SettingError
from tests.support.archive import FIRST_DAY, ArchiveObject, write_folder, zipped
from tests.support.faulty_s3 import (
    LISTING,
    FaultyS3,
    cut,
    deleted,
    overwritten,
    refused,
    reset,
)
from tests.support.s3 import ACCESS_KEY, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tap_vero_segment.archive.objects import StoredObject
    from tests.support.s3 import S3

LARGE = random.Random(5).randbytes(2 * CHUNK + 1_000)
"""The content of an object of three pieces."""


@pytest.fixture
def server() -> Iterator[FaultyS3]:
    """A store with an object of three pieces."""
    with FaultyS3([ArchiveObject("large.gz", LARGE, FIRST_DAY, [])]) as running:
        yield running


def opened(server: FaultyS3, **options: Any) -> Objects:
    return Objects("s3://bucket", server.options | options, "source")


def listed(objects: Objects) -> StoredObject:
    """The one object of a store."""
    [stored] = list_objects(objects, None, None).objects
    return stored


def read(objects: Objects) -> bytes:
    return b"".join(objects.read(listed(objects)))


def signed_by(server: FaultyS3) -> set[str]:
    """Whose keys, and of which region, the requests were signed with."""
    credentials = [asked.headers["authorization"].split("Credential=")[1] for asked in server.asked]
    return {"/".join(text.split("/")[i] for i in (0, 2)) for text in credentials}


# URLs and options


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "bucket"),
        ("s3:///prefix", "bucket"),
        ("gs://", "bucket"),
        ("az:", "bucket"),
        ("ftp://host/folder", "bucket"),
        ("/a/folder", "file:///a/folder"),
        ("file://host/folder", "file:///"),
        ("file://relative", "file:///"),
        ("s3://key:secret@bucket/prefix", "password"),
        ("s3://bucket/prefix?X-Amz-Signature=secret", "after a \\?"),
        ("az://container#secret", "after a \\?"),
        ("https://key:secret@host/bucket", "bucket"),
    ],
)
def test_a_url_that_cannot_be_used_is_told(url, said):
    with pytest.raises(SettingError, match=said) as raised:
        Objects(url, {}, "source")
    assert raised.value.setting == "source"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"acess_key_id": "typing-error"}, "acess_key_id"),
        ({"region": 5}, "region"),
        ({"endpoint": None}, "endpoint"),
        ({"timeout": 30}, "timeout"),
        ({"timeout": "typing-error"}, "timeout"),
        ({"allow_http": "typing-error"}, "allow_http"),
        ({"ALLOW_HTTP": ["yes"]}, "ALLOW_HTTP"),
        ({"endpoint": "typing-error"}, "endpoint"),
        ({"default_headers": "typing-error"}, "default_headers"),
        ({"token": "typing-error\n"}, "token"),
    ],
)
def test_an_option_that_cannot_be_used_is_told_by_name(scheme, options, said):
    account = {"account_name": "account"} if scheme == "az" else {}
    with pytest.raises(SettingError) as raised:
        Objects(f"{scheme}://bucket", account | options, "source")
    assert raised.value.setting == "storage_options"
    assert said in raised.value.problem
    assert "\n" not in raised.value.problem
    assert "typing-error" not in raised.value.problem


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SettingError, match="no folder"):
        Objects((tmp_path / "nothing").as_uri(), {}, "source")
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="no folder"):
        Objects((tmp_path / "file").as_uri(), {}, "source")


@pytest.mark.parametrize("prefix", ["", "aws_", "AWS_"])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_options_have_their_names_in_any_spelling(server, prefix, case):
    options = {f"{prefix}{case(name)}": value for name, value in server.options.items()}
    assert read(Objects("s3://bucket", options, "source")) == LARGE
    assert signed_by(server) == {f"{ACCESS_KEY}/eu-west-1"}


def test_what_is_not_given_comes_from_the_environment(server, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key-of-the-environment",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "ca-west-1",
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    assert read(Objects("s3://bucket", {}, "source")) == LARGE
    assert read(Objects("s3://bucket", {"timeout": "1m"}, "source")) == LARGE
    assert signed_by(server) == {"key-of-the-environment/ca-west-1"}
    given = {"access_key_id": "given", "secret_access_key": "secret", "region": "xx-1"}
    assert read(Objects("s3://bucket", given, "source")) == LARGE
    assert signed_by(server) == {"key-of-the-environment/ca-west-1", "given/xx-1"}


# Plain HTTP


def given_by(monkeypatch: pytest.MonkeyPatch, way: str, options: dict[str, Any]) -> dict[str, Any]:
    """Put options into the environment, unless they are to be given as such."""
    if way == "options":
        return options
    for name, value in options.items():
        monkeypatch.setenv(name.upper(), value)
    return {}


@pytest.mark.parametrize("way", ["options", "environment"])
@pytest.mark.parametrize("name", ["aws_endpoint_url", "aws_endpoint", "aws_endpoint_url_s3"])
def test_an_endpoint_over_plain_http_is_taken_at_its_word(server, monkeypatch, way, name):
    way = "environment" if name == "aws_endpoint_url_s3" else way
    options = given_by(monkeypatch, way, {name: server.endpoint})
    options |= {"access_key_id": "given", "secret_access_key": "secret"}
    assert read(Objects("s3://bucket", options, "source")) == LARGE


def test_one_of_google_and_azure_is_too(server):
    google = {"base_url": server.endpoint, "skip_signature": True}
    assert read(Objects("gs://bucket", google, "source")) == LARGE
    server.asked.clear()
    azure = {"account_name": "name", "account_key": "a2V5", "endpoint": server.endpoint}
    with suppress(ObjectStoreError):  # it speaks no Azure
        list_objects(Objects("az://bucket", azure, "source"), None, None)
    assert server.asked


def test_plain_http_can_still_be_forbidden(server):
    objects = Objects("s3://bucket", server.options | {"allow_http": False}, "source")
    with pytest.raises(ObjectStoreError, match="allow_http = false"):
        list_objects(objects, None, None)
    assert not server.asked


@pytest.mark.parametrize("value", ["", "127.0.0.1:9000", "minio", "http://"])
def test_an_endpoint_that_is_no_url_is_told(monkeypatch, value):
    with pytest.raises(SettingError, match="storage_options: endpoint is no URL"):
        Objects("s3://bucket", {"endpoint": value}, "source")
    monkeypatch.setenv("AWS_ENDPOINT_URL", value)
    with pytest.raises(SettingError, match="AWS_ENDPOINT_URL: it is no URL"):
        Objects("s3://bucket", {}, "--to", create=True)


def test_an_empty_variable_is_unset(server, monkeypatch):
    monkeypatch.setenv("AWS_ALLOW_HTTP", "")
    monkeypatch.setenv("AWS_TIMEOUT", "")
    options = {name: value for name, value in server.options.items() if name != "allow_http"}
    assert read(Objects("s3://bucket", options, "source")) == LARGE


@pytest.mark.parametrize(("name", "value"), [("ALLOW_HTTP", "perhaps"), ("SKIP_SIGNATURE", "")])
def test_a_variable_that_cannot_be_read_is_named(monkeypatch, name, value):
    monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(SettingError, match=f"AWS_{name}, .*as boolean"):
        Objects("s3://bucket", {}, "source")


# AWS profiles


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shared credentials with a default profile and another one."""
    credentials, config = tmp_path / "credentials", tmp_path / "config"
    credentials.write_text(
        "[default]\naws_access_key_id = key-of-default\naws_secret_access_key = secret\n"
        "[other]\naws_access_key_id = key-of-other\naws_secret_access_key = secret\n"
        "aws_session_token = session-token\n"
    )
    config.write_text("[default]\nregion = us-east-2\n[profile other]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))


def at(server: FaultyS3, **options: str) -> dict[str, Any]:
    return {"endpoint": server.endpoint, "allow_http": True, **options}


def test_a_profile_gives_the_keys_and_the_region(server, profiles, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert read(Objects("s3://bucket", at(server), "source")) == LARGE
    assert signed_by(server) == {"key-of-other/eu-north-1"}
    assert {asked.headers["x-amz-security-token"] for asked in server.asked} == {"session-token"}


def test_without_a_profiles_name_the_default_one_counts(server, profiles):
    assert read(Objects("s3://bucket", at(server, region="given-1"), "source")) == LARGE
    assert signed_by(server) == {"key-of-default/given-1"}


def test_keys_that_are_given_come_before_a_profile(server, profiles, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert read(Objects("s3://bucket", server.options, "source")) == LARGE
    assert signed_by(server) == {f"{ACCESS_KEY}/eu-west-1"}


def test_a_profile_that_is_not_there_is_told(server, profiles, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(SettingError, match=r"AWS_PROFILE.*missing") as raised:
        Objects("s3://bucket", at(server), "source")
    assert raised.value.setting == "storage_options"


def test_a_profile_without_its_library_is_told(server, profiles, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "other")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SettingError, match=r"pip install 'tap-vero-segment\[s3\]'"):
        Objects("s3://bucket", at(server), "source")


# Reading


def test_an_object_comes_in_pieces_each_by_a_request_of_its_own(server):
    objects = opened(server)
    pieces = list(objects.read(listed(objects)))
    assert [len(piece) for piece in pieces] == [CHUNK, CHUNK, 1_000]
    assert b"".join(pieces) == LARGE
    requests = server.asked_of("large.gz")
    assert [asked.headers["range"] for asked in requests] == [
        f"bytes=0-{CHUNK - 1}",
        f"bytes={CHUNK}-{2 * CHUNK - 1}",
        f"bytes={2 * CHUNK}-{len(LARGE) - 1}",
    ]
    assert {asked.headers["if-match"] for asked in requests} == {server.objects["large.gz"].etag}


def test_a_folders_object_comes_in_pieces_too(tmp_path):
    url = write_folder(tmp_path / "archive", [ArchiveObject("large.gz", LARGE, FIRST_DAY, [])])
    objects = Objects(url, {}, "source")
    pieces = list(objects.read(listed(objects)))
    assert [len(piece) for piece in pieces] == [CHUNK, CHUNK, 1_000]
    assert b"".join(pieces) == LARGE


def test_a_connection_cut_in_a_piece_is_taken_up_where_it_was_cut(server):
    server.faults["large.gz"].extend([cut(0.25), cut(0.5)])
    assert read(opened(server)) == LARGE
    asked = server.asked_of("large.gz")
    assert len(asked) == 5
    starts = [
        int(request.headers["range"].removeprefix("bytes=").split("-")[0]) for request in asked
    ]
    assert 0 <= starts[1] <= CHUNK // 4
    assert starts[3:] == [CHUNK, 2 * CHUNK]


@pytest.mark.parametrize("pieces_before", [0, 1])
@pytest.mark.parametrize("also_cut", [False, True])
def test_an_object_overwritten_after_the_listing_is_never_mixed_with_its_successor(
    server, pieces_before, also_cut
):
    objects = opened(server)
    reading = objects.read(listed(objects))
    for _ in range(pieces_before):
        next(reading)
    if also_cut:
        server.faults["large.gz"].append(cut(0.5))
    server.faults["large.gz"].append(overwritten(b"x" * len(LARGE), FIRST_DAY))
    with pytest.raises(ReplacedError):
        list(reading)


def test_a_file_overwritten_after_the_listing_is_never_mixed_with_its_successor(tmp_path):
    folder = tmp_path / "archive"
    objects = Objects(
        write_folder(folder, [ArchiveObject("large.gz", LARGE, FIRST_DAY, [])]), {}, "source"
    )
    reading = objects.read(listed(objects))
    next(reading)
    later = FIRST_DAY + timedelta(hours=1)
    write_folder(folder, [ArchiveObject("large.gz", b"x" * len(LARGE), later, [])])
    with pytest.raises(ReplacedError):
        list(reading)


@pytest.mark.parametrize(
    "faults", [[refused(500, "InternalError")], [refused(503, "SlowDown")], [reset]]
)
@pytest.mark.parametrize("path", [LISTING, "large.gz"])
def test_what_can_pass_is_tried_again(server, faults, path):
    server.faults[path].extend(faults)
    assert read(opened(server)) == LARGE
    assert len(server.asked) == 1 + 3 + 1


@pytest.mark.parametrize("path", [LISTING, "large.gz"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refused(403, "AccessDenied"), "access denied (AccessDenied); see storage_options"),
        (
            refused(403, "SignatureDoesNotMatch"),
            "access denied (SignatureDoesNotMatch); see storage_options",
        ),
        (refused(401, "Unauthorized"), "access denied (Unauthorized); see storage_options"),
        (refused(400, "ExpiredToken"), "(ExpiredToken)"),
        (refused(404, "NoSuchBucket"), "there is no such bucket"),
        (refused(301, "PermanentRedirect"), "region"),
        (refused(403, "InvalidObjectState"), "`aws s3api restore-object --bucket bucket --key"),
        (refused(409, "BlobArchived"), "the object is in an archive storage class"),
    ],
)
def test_what_cannot_pass_is_told_in_a_line(server, path, fault, said):
    server.faults[path].append(fault)
    with pytest.raises(ObjectStoreError) as raised:
        read(opened(server))
    assert len(server.asked_of(path)) == 1, "it was tried again"
    where = f"s3://bucket/{path}".rstrip("/")
    assert str(raised.value).startswith(f"source: {where}: ")
    assert said in str(raised.value)
    assert_no_secret(str(raised.value))


def test_an_object_in_an_archive_storage_class_is_told_with_what_to_do(s3: S3):
    s3.make_bucket("frozen")
    s3.client().put_object(
        Bucket="frozen", Key="a/b.gz", Body=zipped(b"{}\n"), StorageClass="GLACIER"
    )
    with pytest.raises(ObjectStoreError) as raised:
        read(Objects("s3://frozen/a", s3.options, "source"))
    said = str(raised.value)
    assert said.startswith("source: s3://frozen/a/b.gz: the object is in an archive storage class")
    assert "aws s3api restore-object --bucket frozen --key 'a/b.gz' --restore-request" in said
    assert "denied" not in said


def test_an_object_that_is_gone_is_told(server):
    server.faults["large.gz"].append(deleted)
    with pytest.raises(ObjectStoreError, match=r"s3://bucket/large\.gz: it is not there"):
        read(opened(server))


def test_an_error_that_stays_is_told_in_a_line_without_the_query(server):
    server.always = refused(500, "InternalError")
    objects = Objects("s3://bucket/prefix", server.options, "source")
    with pytest.raises(ObjectStoreError, match="InternalError") as raised:
        list_objects(objects, None, None)
    assert "list-type" not in str(raised.value)
    assert_no_secret(str(raised.value))


def test_an_endpoints_password_is_not_repeated(server):
    server.always = refused(500, "InternalError")
    endpoint = server.options["endpoint"].replace("://", "://user:secret@")
    objects = Objects("s3://bucket/prefix", server.options | {"endpoint": endpoint}, "source")
    with pytest.raises(ObjectStoreError) as raised:
        list_objects(objects, None, None)
    assert "secret" not in str(raised.value)


def assert_no_secret(text: str) -> None:
    for secret in (ACCESS_KEY, SECRET_KEY, "Signature=", "\n", "<"):
        assert secret not in text


# Google Cloud Storage


@pytest.mark.parametrize("size", [1_000, 2 * CHUNK + 5])
def test_what_google_would_unzip_on_the_way_is_asked_for_as_it_is(size):
    """It says no length of what it unzips, and knows no ranges of it."""
    content = zipped(random.Random(6).randbytes(size))
    with FaultyS3([ArchiveObject("x.gz", content, FIRST_DAY, [])], unzips=True) as server:
        options = {"base_url": server.endpoint, "skip_signature": True, "allow_http": True}
        objects = Objects("gs://bucket", options, "source")
        assert read(objects) == content
        assert read(objects) == content
        said = [asked.headers.get("accept-encoding") for asked in server.asked_of("x.gz")]
        assert said[0] is None
        assert set(said[1:]) == {"gzip"}
        listings = server.asked_of(LISTING)
        assert len(listings) == 2
        assert {asked.headers.get("accept-encoding") for asked in listings} == {None}


def test_what_google_leaves_as_it_is_comes_as_it_is():
    with FaultyS3([ArchiveObject("x.gz", LARGE, FIRST_DAY, [])]) as server:
        options = {
            "google_base_url": server.endpoint,
            "google_skip_signature": True,
            "google_allow_http": "true",
        }
        assert read(Objects("gs://bucket", options, "source")) == LARGE
        assert {asked.headers.get("accept-encoding") for asked in server.asked} == {None}


# Writing


def test_a_written_object_says_what_it_is(s3: S3):
    s3.make_bucket("writing")
    objects = Objects("s3://writing/prefix", s3.options, "--to")
    assert objects.create("folder/x.gz", zipped(b"{}\n"))
    assert not objects.create("folder/x.gz", b"another")
    found = s3.client().get_object(Bucket="writing", Key="prefix/folder/x.gz")
    assert found["Body"].read() == zipped(b"{}\n")
    assert (found["ContentEncoding"], found["ContentType"]) == ("gzip", "application/json")


def test_a_folder_to_write_to_is_made(tmp_path):
    objects = Objects((tmp_path / "a" / "b").as_uri(), {}, "--to", create=True)
    assert objects.create("folder/x.gz", b"before")
    assert not objects.create("folder/x.gz", b"after")
    assert (tmp_path / "a/b/folder/x.gz").read_bytes() == b"before"


def test_what_cannot_be_written_is_told(s3: S3, tmp_path):
    objects = Objects("s3://no-such-bucket", s3.options, "--to")
    with pytest.raises(ObjectStoreError, match=r"--to: s3://no-such-bucket.*no such bucket"):
        objects.create("x.gz", b"")
    (tmp_path / "folder").touch()
    objects = Objects(tmp_path.as_uri(), {}, "--to")
    with pytest.raises(ObjectStoreError, match=f"--to: {tmp_path.as_uri()}/folder/x.gz"):
        objects.create("folder/x.gz", b"")
