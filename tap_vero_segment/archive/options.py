"""Options of object stores, as users write them and as obstore wants them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tap_vero_segment.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


# obstore tells the options of its HTTP client from those of the store, and users need not:
# developmentseed.org/obstore, ClientConfig.
_CLIENT_OPTIONS: Final = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "default_content_type",
        "default_headers",
        "http1_only",
        "http2_keep_alive_interval",
        "http2_keep_alive_timeout",
        "http2_keep_alive_while_idle",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "randomize_addresses",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    }
)
_TIMEOUTS: Final = {"read_timeout": "60s", "timeout": "180s"}
"""Between two pieces of an answer, where obstore itself would wait for ever; and for a whole one,
where it would wait 30 seconds."""

_OF_LINES: Final = frozenset({"proxy_ca_certificate", "root_certificate", "service_account_key"})
"""Options that can be of several lines; with any other obstore panics."""

_QUOTED: Final = re.compile('"(.*)"|".*')
"""How obstore repeats the value of an option."""


class _Provider(NamedTuple):
    """What is particular to a provider.

    Attributes:
        prefix: What the names of options may begin with, and those of environment variables do.
        endpoint: The options that say where another server of its kind is; obstore counts them
            as one.
        credentials: The environment variables that credentials come from.
    """

    prefix: str
    endpoint: tuple[str, ...]
    credentials: str


_BEFORE_ALL: Final = "AWS_ENDPOINT_URL_S3"
"""An environment variable that comes before the option, and is none itself."""

_PROVIDERS: Final = {
    "s3": _Provider(
        "aws_",
        ("endpoint_url", "endpoint"),
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
    "gs": _Provider("google_", ("base_url",), "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": _Provider(
        "azure_",
        ("storage_endpoint", "endpoint"),
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    ),
}


def credentials_of(scheme: str) -> str:
    """Return the environment variables that credentials come from; empty: it takes none."""
    return _PROVIDERS[scheme].credentials if scheme in _PROVIDERS else ""


def split_options(
    scheme: str, options: Mapping[str, Any], setting: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell the options of the store from those of the HTTP client, as obstore wants them.

    An environment variable for the client that is empty counts as unset.

    Args:
        scheme: The scheme of the store's URL.
        options: The options that are given; for others the environment counts.
        setting: The setting that gives options, for errors.

    Raises:
        SettingError: An option is neither text nor true or false, or holds what obstore would not
            survive; or an endpoint is no URL.
    """
    provider = _PROVIDERS[scheme]
    prefix = provider.prefix
    config: dict[str, Any] = {}
    client: dict[str, Any] = dict(_TIMEOUTS)
    # Once it is given any option of the client, obstore takes none from the environment.
    for name in _CLIENT_OPTIONS:
        variable = f"{prefix}{name}".upper()
        if os.environ.get(variable):
            client[name] = os.environ[variable]
    for given, value in options.items():
        name = given.lower()
        short = name.removeprefix(prefix)
        if short == "default_headers":
            if not isinstance(value, dict):
                raise SettingError(setting, f"{given} is not an object")
        elif not isinstance(value, (str, bool)):
            raise SettingError(setting, f"{given} is neither text nor true or false")
        elif short not in _OF_LINES and not str(value).isprintable():
            raise SettingError(setting, f"{given} holds a line end, or what else it cannot hold")
        if short in _CLIENT_OPTIONS:
            client[short] = value
        else:
            config[name] = value
    endpoint = _endpoint(provider, config, setting)
    if endpoint is not None and endpoint.lower().startswith("http:"):
        client.setdefault("allow_http", True)  # who writes so has decided
    return config, client


def _endpoint(provider: _Provider, config: Mapping[str, Any], setting: str) -> str | None:
    """Return the URL of the server that is meant; None: the provider's own.

    Raises:
        SettingError: It is no URL, which obstore would not survive.
    """
    if provider is _PROVIDERS["s3"] and _BEFORE_ALL in os.environ:
        return _checked(os.environ[_BEFORE_ALL], _BEFORE_ALL, "it is ")
    for name in provider.endpoint:
        for given in (name, f"{provider.prefix}{name}"):
            if given in config:
                return _checked(config[given], setting, f"{given} is ")
    for name in provider.endpoint:
        variable = f"{provider.prefix}{name}".upper()
        if variable in os.environ:
            return _checked(os.environ[variable], variable, "it is ")
    return None


def _checked(value: Any, setting: str, what: str) -> str:
    text = str(value)
    if not re.match(r"https?://[^/]", text, re.IGNORECASE):
        raise SettingError(setting, f"{what}no URL, such as https://s3.example:9000")
    return text


def by_name(problem: str, scheme: str, options: Mapping[str, Any]) -> str:
    """Return what obstore says of a value, by the option's or the variable's name instead of it."""
    found = _QUOTED.search(problem)
    if not found:
        return problem
    prefix = _PROVIDERS[scheme].prefix.upper()
    places = {
        **{name: os.environ[name] for name in os.environ if name.startswith(prefix)},
        **options,
    }
    names = [name for name, value in places.items() if value == found[1]]
    return f"{', '.join([*names, ''])}{_QUOTED.sub('it', problem)}"


_GIVEN: Final = ("access_key_id", "aws_access_key_id", "skip_signature", "aws_skip_signature")


def aws_credentials(config: Mapping[str, Any]) -> Callable[[], Any] | None:
    """Return a provider of the credentials of an AWS profile, where one is meant.

    obstore reads keys from options and from the environment, and roles from the instance. A
    profile (``AWS_PROFILE``, or the shared files) takes boto3, which knows all of their kinds.

    Args:
        config: The options for the store; a region among them comes before the profile's.

    Raises:
        SettingError: ``AWS_PROFILE`` is set, but boto3 is not installed or has no such profile.
    """
    if any(name in config for name in _GIVEN) or "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    profile = os.environ.get("AWS_PROFILE")
    shared = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    if not profile and not shared.exists():
        return None
    try:
        import boto3  # noqa: PLC0415  # an extra
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    except ImportError as error:
        if not profile:
            return None
        raise SettingError(
            "storage_options", "AWS_PROFILE needs boto3: pip install 'tap-vero-segment[s3]'"
        ) from error
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            return None
        return Boto3CredentialProvider(session)
    except BotoCoreError as error:
        raise SettingError("storage_options", f"AWS_PROFILE: {error}") from error
