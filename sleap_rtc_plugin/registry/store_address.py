"""Which store an address names: a folder, or a bucket of an S3 server.

`FOLDER` or `s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=NAME`. An address is
shown to everybody in the room, so it never holds credentials: those come from the usual
AWS variables or the profile. Opening contacts nobody. Called by worker and client.
"""

import configparser
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from sleap_rtc_plugin.protocol.errors import StoreInvalid
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_URL_CHARS,
    REGISTRY_TIMEOUT_S,
    STORE_CONNECT_TIMEOUT_S,
    STORE_PIECE_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_plugin.registry.directory_store import DirectoryStore
from sleap_rtc_plugin.registry.object_store import ObjectStore
from sleap_rtc_plugin.registry.remote_store import RemoteStore

__all__ = ["open_store"]

_SCHEME: Final = "s3://"
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}\Z")
_OPTIONS: Final = frozenset({"endpoint", "region", "credentials"})
# Where credentials come from, if not from variables or the profile.
_MACHINE: Final = "machine"
_NONE: Final = "none"
_DEFAULT_REGION: Final = "us-east-1"
# Below what a call may take in all, so that it ends with obstore's own words.
_RETRIES: Final = 3
_RETRY_FOR_S: Final = 12.0


def open_store(
    address: str,
    *,
    create: bool = False,
    environment: Mapping[str, str] | None = None,
) -> ObjectStore:
    """Return the store at an address.

    Args:
        address: a folder, or `s3://...`.
        create: make the folder where it is missing. Only for a program's own folder:
            one that somebody named may be missing because its disk is not mounted.
        environment: the variables to look for credentials in; the program's own.

    Raises:
        StoreInvalid: the address cannot be used.
    """
    if not address.strip() or len(address) > MAX_URL_CHARS or "\0" in address:
        raise _invalid(address, "it is empty or too long")
    if address.startswith(_SCHEME):
        return _open_s3(address, os.environ if environment is None else environment)
    if "://" in address:
        raise _invalid(address, "it is neither a folder nor s3://")
    root = Path(address).expanduser().absolute()
    if create:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"the folder cannot be made ({error.strerror})"
            raise _invalid(address, reason) from error
    return DirectoryStore(root)


def _invalid(address: str, reason: str) -> StoreInvalid:
    # What stands before an @ may be a password.
    shown = re.sub(r"//[^/@]*@", "//", address)
    return StoreInvalid(store=clean_text(shown) or "without a name", reason=reason)


def _open_s3(address: str, environment: Mapping[str, str]) -> RemoteStore:
    from obstore.store import S3Store

    try:
        parts = urlsplit(address)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        pairs = []
        if "?" in address:
            raise _invalid(address, "what follows its ? is not NAME=VALUE") from None
    options = dict(pairs)
    if "@" in parts.netloc:
        raise _invalid(
            address,
            "it holds credentials, which belong into AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        )
    if len(options) != len(pairs) or not options.keys() <= _OPTIONS or parts.fragment:
        raise _invalid(
            address, "it may say endpoint, region and credentials, once each"
        )
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if not _BUCKET.match(bucket):
        raise _invalid(address, "the name of its bucket is none")
    fault = path_fault(prefix) if prefix else None
    if fault:
        raise _invalid(address, f"its prefix {fault}")
    region = options.get("region") or environment.get("AWS_REGION") or _DEFAULT_REGION
    if not _REGION.match(region):
        raise _invalid(address, "the name of its region is none")
    endpoint = options.get("endpoint", "")
    config: dict[str, Any] = {"region": region}
    if endpoint:
        _check_endpoint(address, endpoint)
        config["endpoint"] = endpoint.rstrip("/")
        config["aws_endpoint_url_s3"] = config["endpoint"]
    config |= _credentials(address, options.get("credentials", ""), environment)
    backend = S3Store(
        bucket,
        virtual_hosted_style_request=not endpoint,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=STORE_CONNECT_TIMEOUT_S),
            "timeout": timedelta(seconds=STORE_PIECE_TIMEOUT_S),
            "read_timeout": timedelta(seconds=REGISTRY_TIMEOUT_S),
        },
        retry_config={
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=_RETRY_FOR_S),
        },
        **config,
    )
    return RemoteStore(backend, clean_text(address, MAX_URL_CHARS), prefix)


def _check_endpoint(address: str, endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        is_good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
            and not (parts.username or parts.password or parts.query or parts.fragment)
            and parts.path in ("", "/")
        )
    except ValueError:
        is_good = False
    if not is_good:
        raise _invalid(address, "its endpoint is not http://HOST:PORT or https://HOST")


# -- credentials -------------------------------------------------------------------


def _credentials(
    address: str, source: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    if source == _NONE:
        return {"skip_signature": True}
    if source == _MACHINE:
        return {}  # obstore asks the machine that it runs on, which AWS has to be
    if source:
        raise _invalid(address, "its credentials are not 'machine' or 'none'")
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    values = [environment.get(name, "") for name in names]
    if not (values[0] and values[1]):
        values = _profile(environment)
    if not (values[0] and values[1]):
        raise _invalid(
            address,
            "there are no credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE)",
        )
    found = {"access_key_id": values[0], "secret_access_key": values[1]}
    return {**found, "session_token": values[2]} if values[2] else found


def _profile(environment: Mapping[str, str]) -> list[str]:
    """Return the three values of the profile, each empty where it is not there."""
    named = environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    profile = environment.get("AWS_PROFILE", "default")
    parser = configparser.RawConfigParser()
    try:
        parser.read(Path(named).expanduser(), encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError, RuntimeError):
        return ["", "", ""]
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return [parser.get(profile, name, fallback="") for name in names]
