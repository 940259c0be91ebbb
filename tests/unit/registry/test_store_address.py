"""Which addresses name a store, and where credentials may come from."""

from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.errors import StoreInvalid
from sleap_rtc_plugin.registry.directory_store import DirectoryStore
from sleap_rtc_plugin.registry.remote_store import RemoteStore
from sleap_rtc_plugin.registry.store_address import open_store

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


def test_a_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "x"))
    assert isinstance(store, DirectoryStore)
    assert store.name == str(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    open_store(str(tmp_path / "x" / "y"), create=True)
    assert (tmp_path / "x" / "y").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(StoreInvalid, match="cannot be made"):
        open_store(str(tmp_path / "file" / "y"), create=True)


@pytest.mark.parametrize(
    "address",
    [
        "s3://lab",
        "s3://lab/models/",
        "s3://lab/a/b?region=eu-central-1",
        "s3://lab/models?endpoint=http://127.0.0.1:8333&region=us-east-1",
        "s3://lab/models?endpoint=https://s3.example.org/",
        "s3://lab/models?credentials=none",
        "s3://lab/models?credentials=machine",
    ],
)
def test_buckets(address: str) -> None:
    store = open_store(address, environment=KEYS)
    assert isinstance(store, RemoteStore)
    assert store.name == address


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "empty or too long"),
        ("  ", "empty or too long"),
        ("a\0b", "empty or too long"),
        ("x" * 5_000, "empty or too long"),
        ("gs://lab/models", "neither a folder nor s3"),
        ("http://lab/models", "neither a folder nor s3"),
        ("s3://", "the name of its bucket"),
        ("s3://Lab", "the name of its bucket"),
        ("s3://lab/../x", "leads out of its folder"),
        ("s3://lab/a//b", "leads out of its folder"),
        ("s3://lab/x?endpoint=ftp://a", "its endpoint is not"),
        ("s3://lab/x?endpoint=http://a/b", "its endpoint is not"),
        ("s3://lab/x?endpoint=http://u:p@a", "its endpoint is not"),
        ("s3://lab/x?endpoint=http://a:99999", "its endpoint is not"),
        ("s3://lab/x?region=../x", "the name of its region"),
        ("s3://lab/x?access_key_id=1", "it may say endpoint"),
        ("s3://lab/x?region=a&region=b", "it may say endpoint"),
        ("s3://lab/x?nonsense", "NAME=VALUE"),
        ("s3://lab/x#y", "it may say endpoint"),
        ("s3://lab/x?credentials=mine", "its credentials are not"),
    ],
)
def test_what_is_no_address(address: str, reason: str) -> None:
    with pytest.raises(StoreInvalid, match=reason):
        open_store(address, environment=KEYS)


def test_credentials_are_never_in_the_address_nor_shown() -> None:
    with pytest.raises(StoreInvalid, match="it holds credentials") as caught:
        open_store("s3://key:secret@lab/models", environment=KEYS)
    assert "secret" not in str(caught.value)
    assert "secret" not in str(caught.value.to_wire())


def test_without_credentials_nobody_is_asked() -> None:
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials"}
    with pytest.raises(StoreInvalid, match="there are no credentials"):
        open_store("s3://lab/models", environment=nowhere)


def test_a_profile(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = a\n"
        "[lab]\naws_access_key_id = a\naws_secret_access_key = b%c\n"
    )
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "lab"}
    assert isinstance(open_store("s3://lab/x", environment=environment), RemoteStore)
    environment["AWS_PROFILE"] = "default"
    with pytest.raises(StoreInvalid):
        open_store("s3://lab/x", environment=environment)
    file.write_text("not an ini file")
    with pytest.raises(StoreInvalid):
        open_store("s3://lab/x", environment=environment)
