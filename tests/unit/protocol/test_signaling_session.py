"""A signaling session through lost servers, refusals and silence."""

import msgspec
import pytest
from support import wire_samples
from support.machines import REGISTER, REGISTERED, SERVER, SESSION, session

from sleap_rtc_plugin.protocol import signaling_session as machine
from sleap_rtc_plugin.protocol.close_codes import FATAL_CLOSE_CODES, CloseCode
from sleap_rtc_plugin.protocol.errors import (
    LocalProtocolError,
    NoReply,
    NotAllowed,
    PeerIdTaken,
    RateLimited,
    RemoteFailure,
    RemoteProtocolError,
    RoomGone,
    SignalingUnreachable,
    SignInRequired,
    TokenRefused,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_PENDING_SIGNALING_COMMANDS,
    SIGNALING_BACKOFF_FIRST_S,
    SIGNALING_BACKOFF_MAX_S,
    SIGNALING_PING_INTERVAL_S,
    SIGNALING_REPLY_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    Delivered,
    DiscoverPeers,
    PeerList,
    PeerMetadata,
    Ping,
    Pong,
    ServerError,
    UpdateMetadata,
)
from sleap_rtc_plugin.protocol.signaling_session import (
    Backoff,
    CommandAnswered,
    CommandAsked,
    CommandFailed,
    Connect,
    Connected,
    ConnectFailed,
    Disconnect,
    GaveUp,
    Lost,
    Ready,
    Received,
    Relayed,
    Send,
    SessionState,
    Started,
    Stopped,
    Ticked,
    error_from_server,
)

ASK = DiscoverPeers(id="c-1")
LOST = Lost("it broke", 1006)


def ready(*, keep_trying: bool = False) -> machine.SignalingSession:
    made = session(keep_trying=keep_trying)
    for event in (Started(), Connected(), REGISTERED):
        made.handle(event, 0.0)
    return made


def refusal(code: str, **fields: str) -> Received:
    message = ServerError(id="c-register", code=code, message="no", fields=fields)
    return Received(message)


def gave_up(instructions: list) -> object:
    [end] = [i for i in instructions if isinstance(i, GaveUp)]
    assert Disconnect() in instructions
    return end.error


# -- registering --------------------------------------------------------------------


def test_registering() -> None:
    made = session()
    assert made.handle(Started(), 0.0) == [Connect()]
    assert made.handle(Connected(), 1.0) == [Send(REGISTER)]
    assert made.handle(REGISTERED, 2.0) == [Ready(REGISTERED.message)]
    assert made.state is SessionState.READY


def test_a_registration_that_is_not_ours() -> None:
    for message in wire_samples.FROM_SERVER:
        made = SESSION.at(SessionState.REGISTERING)
        with pytest.raises(RemoteProtocolError):
            made.handle(Received(message), 1.0)


@pytest.mark.parametrize("keep_trying", [True, False])
@pytest.mark.parametrize(
    ("received", "error"),
    [
        (refusal("token_refused", reason="it expired"), TokenRefused),
        (refusal("room_gone"), RoomGone),
        (refusal("peer_id_taken", peer_id="client-1"), PeerIdTaken),
        (refusal("sign_in_required"), SignInRequired),
        (refusal("not_allowed", action="enter this room"), NotAllowed),
    ],
)
def test_refusals_that_no_second_try_changes(received, error, keep_trying) -> None:
    made = session(keep_trying=keep_trying)
    made.handle(Started(), 0.0)
    made.handle(Connected(), 0.0)
    assert isinstance(gave_up(made.handle(received, 1.0)), error)
    assert made.state is SessionState.CLOSED
    assert made.deadline() is None


def test_a_refusal_for_now_is_tried_again_by_a_worker_only() -> None:
    limited = refusal("rate_limited", retry_after_s="2")
    worker = SESSION.at(SessionState.REGISTERING)
    assert worker.handle(limited, 1.0) == [Disconnect()]
    assert worker.state is SessionState.WAITING
    assert worker.handle(Lost("refused", CloseCode.REGISTRATION_REFUSED), 1.0) == []
    command = session(keep_trying=False)
    command.handle(Started(), 0.0)
    command.handle(Connected(), 0.0)
    assert isinstance(gave_up(command.handle(limited, 1.0)), RateLimited)


def test_no_reply_to_register() -> None:
    made = SESSION.at(SessionState.REGISTERING)
    assert made.deadline() == SIGNALING_REPLY_TIMEOUT_S
    assert made.handle(Ticked(), SIGNALING_REPLY_TIMEOUT_S) == [Disconnect()]
    assert made.state is SessionState.WAITING


# -- connecting again ---------------------------------------------------------------


def test_the_first_connection_fails_for_a_command() -> None:
    made = session(keep_trying=False)
    made.handle(Started(), 0.0)
    error = gave_up(made.handle(ConnectFailed("connection refused"), 0.0))
    assert isinstance(error, SignalingUnreachable)
    assert error.server == SERVER
    assert error.reason == "connection refused"


def test_the_first_connection_fails_for_a_worker() -> None:
    made = session(keep_trying=True)
    made.handle(Started(), 0.0)
    assert made.handle(ConnectFailed("connection refused"), 0.0) == []
    retry_at = made.deadline()
    assert made.handle(Ticked(), retry_at - 0.001) == []
    assert made.handle(Ticked(), retry_at) == [Connect()]


def test_a_lost_connection_is_made_again_also_for_a_command() -> None:
    made = ready(keep_trying=False)
    assert made.handle(LOST, 5.0) == []
    assert made.state is SessionState.WAITING
    assert made.handle(Ticked(), made.deadline()) == [Connect()]
    assert made.handle(Connected(), 6.0) == [Send(REGISTER)]


def test_unanswered_commands_are_sent_again_and_answered_ones_are_not() -> None:
    made = ready()
    other = DiscoverPeers(id="c-2")
    assert made.handle(CommandAsked(ASK), 1.0) == [Send(ASK)]
    assert made.handle(CommandAsked(other), 1.0) == [Send(other)]
    reply = PeerList(id="c-1", peers=[])
    assert made.handle(Received(reply), 2.0) == [CommandAnswered("c-1", reply)]
    made.handle(LOST, 3.0)
    made.handle(Ticked(), made.deadline())
    while_away = DiscoverPeers(id="c-3")
    assert made.handle(CommandAsked(while_away), 4.0) == []
    made.handle(Connected(), 4.0)
    again = made.handle(REGISTERED, 4.0)
    assert again == [Ready(REGISTERED.message), Send(other), Send(while_away)]


def test_new_metadata_is_registered_again() -> None:
    made = ready()
    metadata = PeerMetadata(tags=["busy"])
    made.handle(CommandAsked(UpdateMetadata(id="c-1", metadata=metadata)), 1.0)
    made.handle(Received(wire_samples.FROM_SERVER[2]), 1.0)
    made.handle(LOST, 2.0)
    made.handle(Ticked(), made.deadline())
    [send] = made.handle(Connected(), 3.0)
    assert send == Send(msgspec.structs.replace(REGISTER, metadata=metadata))


def test_waiting_grows_and_is_bounded() -> None:
    lowest, highest = Backoff(lambda: 0.0), Backoff(lambda: 0.999)
    previous = 0.0
    for _ in range(40):
        low, high = lowest.next_delay_s(), highest.next_delay_s()
        assert 0 < low < high <= SIGNALING_BACKOFF_MAX_S
        assert low >= previous
        previous = low
    assert previous >= SIGNALING_BACKOFF_MAX_S / 2
    lowest.reset()
    assert lowest.next_delay_s() <= SIGNALING_BACKOFF_FIRST_S


def test_waiting_begins_anew_after_a_registration() -> None:
    made = session(jitter=0.0)
    made.handle(Started(), 0.0)
    delays = []
    now = 0.0
    for _ in range(4):
        made.handle(ConnectFailed("no"), now)
        delays.append(made.deadline() - now)
        now = made.deadline()
        made.handle(Ticked(), now)
    assert delays == sorted(set(delays))
    made.handle(Connected(), now)
    made.handle(REGISTERED, now)
    made.handle(LOST, now)
    assert made.deadline() - now == delays[0]


@pytest.mark.parametrize("state", [SessionState.REGISTERING, SessionState.READY])
@pytest.mark.parametrize("code", sorted(FATAL_CLOSE_CODES))
def test_fatal_close_codes(code: CloseCode, state: SessionState) -> None:
    made = SESSION.at(state)
    error = gave_up(made.handle(Lost("\x1b[2Jsaid the server", code), 1.0))
    expected = {
        CloseCode.ROOM_ENDED: RoomGone,
        CloseCode.REVOKED: TokenRefused,
        CloseCode.REPLACED: PeerIdTaken,
        CloseCode.REGISTRATION_REFUSED: TokenRefused,
        CloseCode.NOT_REGISTERED: TokenRefused,
        CloseCode.PROTOCOL_BROKEN: RemoteProtocolError,
    }
    assert type(error) is expected[code]
    assert made.state is SessionState.CLOSED


@pytest.mark.parametrize(
    "code", [0, 1000, 1001, 1006, 1011, 1012, *set(CloseCode) - FATAL_CLOSE_CODES]
)
def test_close_codes_after_which_one_comes_back(code: int) -> None:
    made = ready()
    assert made.handle(Lost("it closed", code), 1.0) == []
    assert made.state is SessionState.WAITING


# -- commands -----------------------------------------------------------------------


def test_a_command_that_the_server_refuses() -> None:
    made = ready()
    made.handle(CommandAsked(ASK), 1.0)
    said = ServerError(id="c-1", code="rate_limited", message="slow down")
    [failed] = made.handle(
        Received(msgspec.structs.replace(said, fields={"retry_after_s": "3"})), 2.0
    )
    assert failed.command_id == "c-1"
    assert isinstance(failed.error, RateLimited)


@pytest.mark.parametrize(
    "state", [SessionState.IDLE, SessionState.CONNECTING, SessionState.READY]
)
def test_a_command_without_a_reply(state: SessionState) -> None:
    made = SESSION.at(state)
    made.handle(CommandAsked(ASK), 5.0)
    due = 5.0 + SIGNALING_REPLY_TIMEOUT_S
    assert made.deadline() <= due
    [failed] = [i for i in made.handle(Ticked(), due) if isinstance(i, CommandFailed)]
    assert isinstance(failed.error, NoReply)
    assert "DiscoverPeers" in str(failed.error)
    if state is SessionState.READY:
        late = PeerList(id="c-1", peers=[])
        assert made.handle(Received(late), due + 1) == []


def test_too_many_commands() -> None:
    made = ready()
    for n in range(MAX_PENDING_SIGNALING_COMMANDS):
        made.handle(CommandAsked(DiscoverPeers(id=f"c-{n}")), 1.0)
    with pytest.raises(LocalProtocolError):
        made.handle(CommandAsked(DiscoverPeers(id="c-last")), 1.0)


def test_the_session_registers_by_itself() -> None:
    for state in set(SessionState) - {SessionState.CLOSED}:
        with pytest.raises(LocalProtocolError):
            SESSION.at(state).handle(CommandAsked(REGISTER), 1.0)


def test_what_other_peers_send_is_handed_on() -> None:
    made = ready()
    for message in wire_samples.FROM_SERVER[-4:]:
        assert made.handle(Received(message), 1.0) == [Relayed(message)]


# -- silence ------------------------------------------------------------------------


def test_a_server_that_answers_is_pinged_and_kept() -> None:
    made = ready()
    now = 0.0
    for n in range(1, 5):
        now += SIGNALING_PING_INTERVAL_S
        assert made.deadline() == now
        [send] = made.handle(Ticked(), now)
        assert send == Send(Ping(id=f"ping-{n}"))
        assert made.handle(Received(Pong(id=f"ping-{n}", time=0.0)), now + 1) == []
    assert made.state is SessionState.READY


def test_a_silent_server_is_left() -> None:
    made = ready()
    made.handle(CommandAsked(ASK), SIGNALING_PING_INTERVAL_S)
    made.handle(Ticked(), SIGNALING_PING_INTERVAL_S)
    due = SIGNALING_PING_INTERVAL_S + SIGNALING_REPLY_TIMEOUT_S
    assert made.deadline() == due
    instructions = made.handle(Ticked(), due)
    assert Disconnect() in instructions
    assert made.state is SessionState.WAITING
    assert made.handle(Received(Delivered(id="c-9")), due) == []


# -- the end ------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted({*SessionState} - {SessionState.CLOSED}))
def test_leaving_fails_what_is_pending(state: SessionState) -> None:
    made = SESSION.at(state)
    for n in range(3):
        made.handle(CommandAsked(DiscoverPeers(id=f"c-{n}")), 0.0)
    instructions = made.handle(Stopped(), 1.0)
    failed = [i.command_id for i in instructions if isinstance(i, CommandFailed)]
    assert failed == ["c-0", "c-1", "c-2"]
    assert instructions[-1] == Disconnect()
    assert made.deadline() is None
    assert made.handle(Stopped(), 2.0) == []


def test_giving_up_fails_what_is_pending() -> None:
    made = ready()
    made.handle(CommandAsked(ASK), 1.0)
    instructions = made.handle(Lost("gone", CloseCode.ROOM_ENDED), 2.0)
    [failed] = [i for i in instructions if isinstance(i, CommandFailed)]
    assert isinstance(failed.error, RoomGone)


def test_after_the_end_commands_fail_at_once_and_a_late_socket_is_closed() -> None:
    made = SESSION.at(SessionState.CLOSED)
    [failed] = made.handle(CommandAsked(ASK), 1.0)
    assert isinstance(failed.error, SignalingUnreachable)
    assert made.handle(Connected(), 1.0) == [Disconnect()]


# -- errors from a server -----------------------------------------------------------


def test_a_servers_error_names_the_address_that_was_used() -> None:
    said = ServerError(
        id="c-1", code="room_gone", message="", fields={"server": "http://evil"}
    )
    error = error_from_server(said, SERVER)
    assert isinstance(error, RoomGone)
    assert error.server == SERVER


def test_an_unknown_error_keeps_the_servers_words_cleaned() -> None:
    said = ServerError(
        id="", code="new\x1b", message="Too \u202ebad.", fields={"a": "b"}
    )
    error = error_from_server(said, SERVER)
    assert isinstance(error, RemoteFailure)
    assert error.kind == "new"
    assert error.detail == "Too  bad."


# -- accounts ------------------------------------------------------------------------


def revoked(account: str) -> machine.SignalingSession:
    """A session that was registered with this account, and then told REVOKED."""
    made = session()
    for event in (Started(), Connected(account=account), REGISTERED):
        made.handle(event, 0.0)
    return made


def test_the_account_of_the_moment_registers() -> None:
    made = session()
    made.handle(Started(), 0.0)
    [send] = made.handle(Connected(account="first"), 1.0)
    assert send.message == msgspec.structs.replace(REGISTER, account="first")
    made.handle(REGISTERED, 1.0)
    made.handle(LOST, 2.0)
    made.handle(Ticked(), 3.0)
    [send] = made.handle(Connected(account="second"), 4.0)
    assert send.message.account == "second"
    made.handle(LOST, 5.0)
    made.handle(Ticked(), 8.0)
    [send] = made.handle(Connected(), 9.0)  # signed out meanwhile
    assert send.message == REGISTER


def test_a_token_that_ended_is_replaced_by_the_next() -> None:
    made = revoked("first")
    assert made.handle(Lost("it has ended", CloseCode.REVOKED), 10.0) == []
    assert made.handle(Ticked(), 11.0) == [Connect()]
    [send] = made.handle(Connected(account="second"), 11.5)
    assert send.message.account == "second"
    assert made.handle(REGISTERED, 12.0) == [Ready(REGISTERED.message)]


def test_what_was_taken_back_does_not_come_again() -> None:
    made = revoked("first")
    made.handle(Lost("taken back", CloseCode.REVOKED), 10.0)
    made.handle(Ticked(), 11.0)
    assert isinstance(gave_up(made.handle(Connected("first"), 12.0)), TokenRefused)
    made = revoked("first")
    made.handle(Lost("taken back", CloseCode.REVOKED), 10.0)
    made.handle(Ticked(), 11.0)
    made.handle(Connected(account="second"), 12.0)
    said = gave_up(made.handle(refusal("sign_in_required"), 12.0))
    assert isinstance(said, SignInRequired)


def test_without_an_account_what_was_taken_back_is_the_end() -> None:
    made = ready(keep_trying=True)
    end = gave_up(made.handle(Lost("taken back", CloseCode.REVOKED), 10.0))
    assert isinstance(end, TokenRefused)
