import base64
import json
import stat
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import StorageFailed, TokenRefused
from sleap_rtc_signaling.tokens import KEY_FILE, Tokens, load_or_make_key

KEY = Ed25519PrivateKey.generate()
TOKENS = Tokens(KEY, "http://server")
NOW = 1_000.0
ROOM = TOKENS.issue("room", "room-1", NOW, NOW + 60)


def forged(claims: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    good = jwt.decode(ROOM, options={"verify_signature": False})
    head = {"kid": TOKENS.key_id, "typ": "sleap-rtc-room+jwt"} | (headers or {})
    kept = {k: v for k, v in (good | claims).items() if v is not ...}
    return jwt.encode(kept, KEY, algorithm="EdDSA", headers=head)


def unsigned(header: dict[str, Any]) -> str:
    parts = ROOM.split(".")
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{head}.{parts[1]}."


def test_a_token_is_good_until_it_expires() -> None:
    assert TOKENS.verify("room", ROOM, NOW) == "room-1"
    assert TOKENS.verify("room", ROOM, NOW + 59.9) == "room-1"
    with pytest.raises(TokenRefused, match="expired"):
        TOKENS.verify("room", ROOM, NOW + 60)


def test_kinds_are_not_interchangeable() -> None:
    account = TOKENS.issue("account", "anonymous-1", NOW, NOW + 60)
    assert TOKENS.verify("account", account, NOW) == "anonymous-1"
    with pytest.raises(TokenRefused):
        TOKENS.verify("room", account, NOW)
    with pytest.raises(TokenRefused):
        TOKENS.verify("account", ROOM, NOW)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "é.é.é",
        "..",
        ROOM + "x" * 5_000,
        ROOM[:-3],
        ROOM.rpartition(".")[0] + ".",
        Tokens(Ed25519PrivateKey.generate(), "s").issue("room", "r", NOW, NOW + 60),
        TOKENS.issue("worker", "room-1", NOW, NOW + 60),
        forged({"cid": 7}),
        forged({"cid": None}),
        forged({"cid": "../x"}),
        unsigned({"alg": "none", "typ": "sleap-rtc-room+jwt", "kid": TOKENS.key_id}),
        unsigned({"alg": "EdDSA", "typ": "sleap-rtc-room+jwt", "kid": TOKENS.key_id}),
        forged({}, {"kid": "another"}),
        forged({}, {"typ": "sleap-rtc-account+jwt"}),
        forged({"aud": "sleap-rtc-account"}),
        forged({"aud": ...}),
        forged({"iss": "somebody"}),
        forged({"iss": ...}),
        forged({"exp": ...}),
        forged({"exp": "soon"}),
        forged({"exp": None}),
        forged({"exp": NOW - 1}),
        forged({"sub": ...}),
        forged({"sub": "../room"}),
        forged({"iat": ...}),
    ],
)
def test_what_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(TokenRefused):
        TOKENS.verify("room", token, NOW)


def test_the_public_key_does_not_serve_as_a_shared_secret() -> None:
    public = KEY.public_key().public_bytes_raw()
    claims = jwt.decode(ROOM, options={"verify_signature": False})
    token = jwt.encode(
        claims,
        public,
        algorithm="HS256",
        headers={"kid": TOKENS.key_id, "typ": "sleap-rtc-room+jwt"},
    )
    with pytest.raises(TokenRefused):
        TOKENS.verify("room", token, NOW)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin")))
def test_any_text_gives_a_refusal(text: str) -> None:
    with pytest.raises(TokenRefused):
        TOKENS.verify("room", text, NOW)


def test_a_refusal_repeats_nothing_of_the_token() -> None:
    with pytest.raises(TokenRefused) as caught:
        TOKENS.verify("account", ROOM, NOW)
    assert not any(part in str(caught.value) for part in ROOM.split("."))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_nothing_shows_the_key() -> None:
    assert repr(TOKENS) == f"Tokens(key_id='{TOKENS.key_id}')"


def test_the_key_is_made_once_and_stays(tmp_path: Path) -> None:
    first = load_or_make_key(tmp_path)
    assert load_or_make_key(tmp_path).private_bytes_raw() == first.private_bytes_raw()
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.skipif(sys.platform == "win32", reason="no mode bits")
def test_the_key_is_private_and_made_so_again(tmp_path: Path) -> None:
    load_or_make_key(tmp_path)
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    load_or_make_key(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    ],
)
def test_a_damaged_key_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(StorageFailed, match=KEY_FILE):
        load_or_make_key(tmp_path)


def test_a_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="No such file"):
        load_or_make_key(tmp_path / "missing")
