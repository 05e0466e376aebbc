"""Credentials that obstore does not find by itself: AWS profiles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
