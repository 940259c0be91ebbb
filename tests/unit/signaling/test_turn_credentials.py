"""Time-limited TURN credentials: how they are made, and what is told of the secret."""

from sleap_rtc_signaling.config import SignalingConfig, TurnServer
from sleap_rtc_signaling.turn_credentials import turn_name, turn_servers

SECRET = "a secret of this test"
SERVER = TurnServer(
    urls=("turn:turn.lab:3478", "turns:turn.lab:5349?transport=tcp"), secret=SECRET
)


def test_the_password_is_what_coturn_computes() -> None:
    # echo -n '1800000000:lab' | openssl dgst -sha1 -hmac 'a secret of this test'
    # -binary | base64
    (made,) = turn_servers([SERVER], "lab", 1_800_000_000)
    assert made.urls == ["turn:turn.lab:3478", "turns:turn.lab:5349?transport=tcp"]
    assert made.username == "1800000000:lab"
    assert made.credential == "gkyjWHUYnK6iFWP5K9RvL6Tay6U="


def test_every_server_has_a_password_of_its_own_secret() -> None:
    other = SERVER.model_copy(update={"secret": "another secret of this test"})
    one, two = turn_servers([SERVER, other], "lab", 1)
    assert one.username == two.username
    assert one.credential != two.credential


def test_a_name_tells_nothing_and_stays() -> None:
    assert turn_name("room-1") == turn_name("room-1") != turn_name("room-2")
    assert "room" not in turn_name("room-1")
    assert ":" not in turn_name("room-1")


def test_the_secret_is_not_shown() -> None:
    config = SignalingConfig(turn=(SERVER,))
    assert SECRET not in f"{SERVER!r} {SERVER} {config!r} {config}"
