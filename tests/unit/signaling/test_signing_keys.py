import stat
import sys
from pathlib import Path

import jwt
import pytest

from sleap_rtc_plugin.protocol.errors import StorageFailed, TokenRefused, TooMany
from sleap_rtc_signaling.limits import (
    KEY_SETTLE_S,
    MAX_SIGNING_KEYS,
    ROOM_TOKEN_LIFETIME_S,
)
from sleap_rtc_signaling.signing_keys import KEY_FILE, load_or_make_keys, rotate
from sleap_rtc_signaling.tokens import Tokens

NOW = 1_700_000_000.0
HOUR_S = 3600.0


def key_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_new_key_signs_once_every_server_can_have_read_it(tmp_path: Path) -> None:
    (old,) = load_or_make_keys(tmp_path)
    _, new = rotate(tmp_path, NOW)
    tokens = Tokens(load_or_make_keys(tmp_path), "http://server")
    before = tokens.issue("room", "room-1", NOW, NOW + HOUR_S)
    after = tokens.issue("room", "room-1", NOW + KEY_SETTLE_S, NOW + HOUR_S)
    assert (key_of(before), key_of(after)) == (old.key_id, new.key_id)
    for token in (before, after):
        assert tokens.verify("room", token, NOW) == "room-1"
    assert tokens.key_id == new.key_id


def test_a_clock_before_all_keys_signs_with_the_oldest(tmp_path: Path) -> None:
    rotate(tmp_path, NOW)
    (tmp_path / KEY_FILE).unlink()
    tokens = Tokens(load_or_make_keys(tmp_path), "http://server")
    assert tokens.verify("room", tokens.issue("room", "r", 5.0, 9.0), 6.0) == "r"


def test_reloading_changes_what_verifies_and_what_signs(tmp_path: Path) -> None:
    tokens = Tokens(load_or_make_keys(tmp_path), "http://server")
    old = tokens.issue("account", "anonymous-1", NOW, NOW + HOUR_S)
    keys = rotate(tmp_path, NOW, delay_s=0.0)
    tokens.reload(keys)
    new = tokens.issue("account", "anonymous-1", NOW, NOW + HOUR_S)
    assert key_of(new) == keys[-1].key_id != key_of(old)
    assert tokens.verify("account", old, NOW) == "anonymous-1"
    tokens.reload(keys[-1:])
    with pytest.raises(TokenRefused):
        tokens.verify("account", old, NOW)
    with pytest.raises(ValueError, match="without a key"):
        tokens.reload([])


def test_a_key_goes_once_its_last_token_has_ended(tmp_path: Path) -> None:
    load_or_make_keys(tmp_path)
    rotate(tmp_path, NOW, longest_token_s=HOUR_S)
    retired = NOW + KEY_SETTLE_S
    last = retired + HOUR_S + KEY_SETTLE_S
    assert len(rotate(tmp_path, last - 2, longest_token_s=HOUR_S)) == 3
    kept = rotate(tmp_path, last, longest_token_s=HOUR_S)
    assert len(kept) == 3
    assert KEY_FILE not in names(tmp_path)
    # Its absence makes no server believe that this is the first start.
    assert [key.key_id for key in load_or_make_keys(tmp_path)] == [
        key.key_id for key in kept
    ]


def test_keys_of_one_second_stay_in_order(tmp_path: Path) -> None:
    for count in range(2, 6):
        keys = rotate(tmp_path, NOW, delay_s=0.0)
        assert len({key.key_id for key in keys}) == count
    assert [key.signs_from for key in keys] == [0, NOW, NOW + 1, NOW + 2, NOW + 3]


def test_there_are_so_many_keys_and_no_more(tmp_path: Path) -> None:
    for _ in range(MAX_SIGNING_KEYS - 1):
        rotate(tmp_path, NOW)
    with pytest.raises(TooMany):
        rotate(tmp_path, NOW)
    assert len(rotate(tmp_path, NOW + ROOM_TOKEN_LIFETIME_S + HOUR_S)) == 2
    for number in range(MAX_SIGNING_KEYS):
        (tmp_path / f"signing-key-{number}.pem").write_bytes(b"")
    with pytest.raises(StorageFailed, match="more than"):
        load_or_make_keys(tmp_path)


def test_other_files_are_no_keys(tmp_path: Path) -> None:
    (tmp_path / "signing-key-x.pem").write_bytes(b"")
    (tmp_path / "signing-key-1.pem.bak").write_bytes(b"")
    (tmp_path / "signaling.sqlite3").write_bytes(b"")
    assert [key.path for key in load_or_make_keys(tmp_path)] == [tmp_path / KEY_FILE]


@pytest.mark.skipif(sys.platform == "win32", reason="no mode bits")
def test_new_keys_are_private(tmp_path: Path) -> None:
    for key in rotate(tmp_path, NOW):
        assert key.path is not None
        assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
        assert repr(key) == f"SigningKey('{key.key_id}')"


def test_a_claim_names_what_can_be_taken_back(tmp_path: Path) -> None:
    tokens = Tokens(load_or_make_keys(tmp_path), "http://server")
    token = tokens.issue("worker", "room-1", NOW, NOW + HOUR_S, credential_id="cred-1")
    claims = tokens.verify_claims("worker", token, NOW)
    assert (claims.subject, claims.credential_id) == ("room-1", "cred-1")
    assert claims.expires_at == NOW + HOUR_S
    plain = tokens.issue("room", "room-1", NOW, NOW + HOUR_S)
    assert tokens.verify_claims("room", plain, NOW).credential_id == ""
