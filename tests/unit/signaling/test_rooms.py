"""Rooms, members, invitations and credentials over records in memory."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sleap_rtc_plugin.protocol.account_messages import (
    InviteMember,
    MakeCredential,
    MemberRole,
)
from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    InvitationRefused,
    NotAllowed,
    RoomGone,
    RtcError,
    TooMany,
)
from sleap_rtc_plugin.protocol.invitation_code import InvitationCode
from sleap_rtc_plugin.protocol.limits import MAX_MEMBERS_PER_ROOM
from sleap_rtc_signaling.accounts import Identity
from sleap_rtc_signaling.limits import (
    DAY_S,
    MAX_CREDENTIALS_PER_ROOM,
    MAX_INVITATIONS_PER_ROOM,
)
from sleap_rtc_signaling.rooms import OLD_CREDENTIAL, Rooms
from sleap_rtc_signaling.stores import Store
from sleap_rtc_signaling.stores.memory import MemoryRecords
from sleap_rtc_signaling.tokens import Tokens

NOW = 1_000.0
URL = "http://lab.example:8080"


def person(name: str, *, is_named: bool = True, ends: float = NOW + 50) -> Identity:
    return Identity(
        account_id=name,
        name=name.title(),
        method="oidc" if is_named else "anonymous",
        is_named=is_named,
        expires_at=ends,
    )


ANN, BOB, EVE = person("ann"), person("bob"), person("eve")


class Told:
    """What the switchboard was told."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.revoked: list[str] = []

    def close_room(self, room_id: str) -> None:
        self.closed.append(room_id)

    def revoke(
        self, room_id: str, *, credential_id: str = "", account_id: str = ""
    ) -> None:
        self.revoked.append(credential_id or account_id)


class World:
    def __init__(self) -> None:
        self.told = Told()
        self.store = Store(MemoryRecords())
        self.tokens = Tokens(Ed25519PrivateKey.generate(), "a server")
        self.rooms = Rooms(self.store, self.tokens, self.told, "a server", 7200.0, 9e5)

    async def room(self, **fields: str) -> str:
        access = "members" if fields.get("access") == "members" else "open"
        made = await self.rooms.create(ANN, fields.get("name", ""), access, NOW)
        return made.room_id

    async def code(self, room_id: str, role: MemberRole = "member") -> str:
        asked = InviteMember(role=role)
        return (await self.rooms.invite(ANN, room_id, asked, URL, NOW)).code

    async def join(
        self, room_id: str, who: Identity, role: MemberRole = "member"
    ) -> None:
        code = await self.code(room_id, role)
        assert (await self.rooms.accept(who, code, NOW)).role == role

    async def roles(self, room_id: str, now: float = NOW) -> dict[str, str]:
        members = (await self.rooms.details(ANN, room_id, now)).members
        return {member.account_id: member.role for member in members}


@pytest.fixture
def world() -> World:
    return World()


# -- rooms --------------------


async def test_who_makes_a_room_owns_it(world: World) -> None:
    room_id = await world.room(name="Flies\x1b[31m", access="members")
    details = await world.rooms.details(ANN, room_id, NOW)
    assert (details.room.role, details.room.access) == ("owner", "members")
    assert details.room.name == "Flies [31m"
    assert [member.name for member in details.members] == ["Ann"]
    (credential,) = details.credentials
    assert credential.kind == "session"
    assert await world.rooms.mine(ANN, NOW) == [details.room]


async def test_a_foreign_room_is_not_there(world: World) -> None:
    room_id = await world.room()
    errors = []
    for asked in (room_id, "room-that-never-was"):
        with pytest.raises(RoomGone) as caught:
            await world.rooms.details(EVE, asked, NOW)
        errors.append(str(caught.value))
        with pytest.raises(NotAllowed, match="delete this room"):
            await world.rooms.delete(EVE, asked, NOW)
    assert errors[0] == errors[1]
    assert await world.rooms.mine(EVE, NOW) == []


async def test_the_room_of_a_named_account_lives_while_it_is_used(
    world: World,
) -> None:
    room_id = await world.room()
    later = NOW
    for _ in range(10):
        later += 80 * DAY_S
        await world.rooms.details(ANN, room_id, later)
    with pytest.raises(RoomGone):
        await world.rooms.details(ANN, room_id, later + 91 * DAY_S)
    made = await world.rooms.create(person("x", is_named=False), "", "open", NOW)
    assert made.expires_at == NOW + 7200.0


async def test_closing_an_open_room_sends_those_out_who_are_no_members(
    world: World,
) -> None:
    room_id = await world.room()
    (session,) = (await world.rooms.details(ANN, room_id, NOW)).credentials
    asked = MakeCredential(kind="worker")
    await world.rooms.make_credential(ANN, room_id, asked, NOW)
    changed = await world.rooms.change(ANN, room_id, None, "members", NOW)
    assert changed.access == "members"
    assert world.told.revoked == [OLD_CREDENTIAL, session.credential_id]
    renamed = await world.rooms.change(ANN, room_id, "Flies", None, NOW)
    assert (renamed.name, renamed.access) == ("Flies", "members")
    assert len(world.told.revoked) == 2


# -- members --------------------


async def test_the_last_owner_stays(world: World) -> None:
    room_id = await world.room()
    for role in (None, "member", "guest"):
        with pytest.raises(NotAllowed, match="without an owner"):
            await world.rooms.change_member(ANN, room_id, "ann", role, NOW)
    await world.join(room_id, BOB, "owner")
    # Both at once: one of them stays.
    results = await asyncio.gather(
        world.rooms.change_member(ANN, room_id, "ann", None, NOW),
        world.rooms.change_member(BOB, room_id, "bob", None, NOW),
        return_exceptions=True,
    )
    assert [type(result) for result in results].count(NotAllowed) == 1


async def test_somebody_removed_is_sent_out_with_their_workers(world: World) -> None:
    room_id = await world.room()
    await world.join(room_id, BOB)
    made = await world.rooms.make_credential(
        BOB, room_id, MakeCredential(kind="worker"), NOW
    )
    await world.rooms.change_member(ANN, room_id, "bob", None, NOW)
    assert world.told.revoked == [made.credential_id, "bob"]
    assert await world.roles(room_id) == {"ann": "owner"}
    assert await world.rooms.mine(BOB, NOW) == []
    with pytest.raises(RoomGone):
        await world.rooms.details(BOB, room_id, NOW)


async def test_a_member_who_becomes_a_guest_loses_their_workers(world: World) -> None:
    room_id = await world.room()
    await world.join(room_id, BOB)
    await world.rooms.make_credential(BOB, room_id, MakeCredential(kind="worker"), NOW)
    await world.rooms.change_member(ANN, room_id, "bob", "guest", NOW)
    assert "bob" in world.told.revoked
    details = await world.rooms.details(ANN, room_id, NOW)
    assert [credential.kind for credential in details.credentials] == ["session"]


async def test_anybody_may_leave_but_a_stranger_changes_nothing(world: World) -> None:
    room_id = await world.room()
    await world.join(room_id, BOB, "guest")
    with pytest.raises(RoomGone):
        await world.rooms.change_member(EVE, room_id, "eve", None, NOW)
    with pytest.raises(NotAllowed):
        await world.rooms.change_member(ANN, room_id, "nobody", "member", NOW)
    await world.rooms.change_member(BOB, room_id, "bob", None, NOW)
    assert await world.roles(room_id) == {"ann": "owner"}


async def test_members_are_bounded(world: World) -> None:
    room_id = await world.room()
    for n in range(MAX_MEMBERS_PER_ROOM - 1):
        await world.join(room_id, person(f"person-{n}"), "guest")
    code = await world.code(room_id)
    with pytest.raises(TooMany):
        await world.rooms.accept(EVE, code, NOW)
    await world.rooms.change_member(ANN, room_id, "person-1", None, NOW)
    # It was not used up by the one for whom there was no place.
    await world.rooms.accept(EVE, code, NOW)


# -- roles --------------------

Ask = Callable[[World, Identity, str], Awaitable[object]]


async def _invite(world: World, who: Identity, room_id: str) -> None:
    await world.rooms.invite(who, room_id, InviteMember(), URL, NOW)


ASKED: dict[str, tuple[Ask, MemberRole]] = {
    "see": (lambda w, who, room: w.rooms.details(who, room, NOW), "guest"),
    "rename": (lambda w, who, room: w.rooms.change(who, room, "x", None, NOW), "owner"),
    "change": (
        lambda w, who, room: w.rooms.change_member(who, room, "cat", "guest", NOW),
        "owner",
    ),
    "invite": (_invite, "owner"),
    "take back": (
        lambda w, who, room: w.rooms.revoke_invitation(who, room, "invitation-1", NOW),
        "owner",
    ),
    "session": (
        lambda w, who, room: w.rooms.make_credential(
            who, room, MakeCredential(kind="session"), NOW
        ),
        "owner",
    ),
    "worker": (
        lambda w, who, room: w.rooms.make_credential(
            who, room, MakeCredential(kind="worker"), NOW
        ),
        "member",
    ),
    "delete": (lambda w, who, room: w.rooms.delete(who, room, NOW), "owner"),
}
RANK = {"guest": 0, "member": 1, "owner": 2}


@pytest.mark.parametrize("role", [None, "guest", "member", "owner"])
@pytest.mark.parametrize("what", ASKED)
async def test_what_each_role_may(
    world: World, what: str, role: MemberRole | None
) -> None:
    room_id = await world.room()
    await world.join(room_id, person("cat"))
    if role is not None:
        await world.join(room_id, BOB, role)
    ask, needed = ASKED[what]
    problem: RtcError | None = None
    try:
        await ask(world, BOB, room_id)
    except RtcError as error:
        problem = error
    if role is None:
        assert isinstance(problem, NotAllowed if what == "delete" else RoomGone)
    elif RANK[role] < RANK[needed]:
        assert isinstance(problem, NotAllowed)
    elif what == "take back":
        assert "not there" in str(problem)
    else:
        assert problem is None


async def test_what_each_role_sees(world: World) -> None:
    room_id = await world.room()
    await world.join(room_id, BOB)
    await world.join(room_id, EVE, "guest")
    await world.code(room_id)
    await world.rooms.make_credential(BOB, room_id, MakeCredential(kind="worker"), NOW)
    seen = {}
    for who in (ANN, BOB, EVE):
        details = await world.rooms.details(who, room_id, NOW)
        seen[who.account_id] = (
            len(details.members),
            len(details.invitations),
            [credential.kind for credential in details.credentials],
        )
    assert seen == {
        "ann": (3, 1, ["session", "worker"]),
        "bob": (3, 0, ["worker"]),
        "eve": (1, 0, []),
    }


# -- invitations --------------------


async def test_an_invitation_is_good_once_also_at_once(world: World) -> None:
    room_id = await world.room()
    code = await world.code(room_id)
    results = await asyncio.gather(
        *(world.rooms.accept(person(f"p-{n}"), code, NOW) for n in range(5)),
        return_exceptions=True,
    )
    refused = [r for r in results if isinstance(r, InvitationRefused)]
    assert len(refused) == 4
    assert len(await world.roles(room_id)) == 2
    with pytest.raises(InvitationRefused, match="was used"):
        await world.rooms.accept(EVE, code, NOW)


async def test_an_invitation_ends(world: World) -> None:
    room_id = await world.room()
    code = await world.code(room_id)
    with pytest.raises(InvitationRefused):
        await world.rooms.accept(BOB, code, NOW + 7 * DAY_S)
    long = InviteMember(expires_in_s=1e9)
    made = await world.rooms.invite(ANN, room_id, long, URL, NOW)
    assert made.expires_at == NOW + 30 * DAY_S


async def test_a_code_with_another_secret_is_worth_nothing(world: World) -> None:
    room_id = await world.room()
    code = InvitationCode.parse(await world.code(room_id))
    for secret in ("a", code.secret[:-1], code.secret + "a"):
        forged = InvitationCode(
            url=code.url, invitation_id=code.invitation_id, secret=secret
        )
        with pytest.raises(InvitationRefused):
            await world.rooms.accept(EVE, forged.encode(), NOW)
    for text in ("", "sleap-invite:", "x" * 400):
        with pytest.raises(InvitationRefused):
            await world.rooms.accept(EVE, text, NOW)
    assert (await world.rooms.accept(BOB, code.encode(), NOW)).role == "member"


async def test_an_invitation_is_taken_back(world: World) -> None:
    room_id = await world.room()
    code = await world.code(room_id)
    (waiting,) = (await world.rooms.details(ANN, room_id, NOW)).invitations
    await world.rooms.revoke_invitation(ANN, room_id, waiting.invitation_id, NOW)
    with pytest.raises(InvitationRefused):
        await world.rooms.accept(BOB, code, NOW)


async def test_an_invitation_to_a_room_that_is_gone(world: World) -> None:
    room_id = await world.room()
    code = await world.code(room_id)
    await world.rooms.delete(ANN, room_id, NOW)
    assert world.told.closed == [room_id]
    with pytest.raises(InvitationRefused):
        await world.rooms.accept(BOB, code, NOW)


async def test_the_secret_is_kept_nowhere(world: World) -> None:
    room_id = await world.room()
    code = InvitationCode.parse(await world.code(room_id))
    for kind in await world.store.records.kinds():
        for record in await world.store.records.everything(kind, NOW):
            assert code.secret.encode() not in record.value


async def test_a_member_does_not_use_up_an_invitation_that_gives_nothing(
    world: World,
) -> None:
    room_id = await world.room()
    await world.join(room_id, BOB)
    code = await world.code(room_id)
    with pytest.raises(InvitationRefused, match="a member already"):
        await world.rooms.accept(BOB, code, NOW)
    with pytest.raises(InvitationRefused, match="a member already"):
        await world.rooms.accept(ANN, code, NOW)
    await world.rooms.accept(EVE, code, NOW)
    await world.join(room_id, BOB, "owner")
    assert (await world.roles(room_id))["bob"] == "owner"


async def test_a_membership_may_end(world: World) -> None:
    room_id = await world.room()
    asked = InviteMember(role="guest", member_for_s=20.0)
    code = (await world.rooms.invite(ANN, room_id, asked, URL, NOW)).code
    await world.rooms.accept(BOB, code, NOW)
    assert "bob" in await world.roles(room_id, NOW + 19)
    assert "bob" not in await world.roles(room_id, NOW + 20)
    with pytest.raises(BadRequest):
        await world.rooms.invite(
            ANN, room_id, InviteMember(role="owner", member_for_s=20.0), URL, NOW
        )


async def test_an_account_without_a_name_is_a_member_while_it_lasts(
    world: World,
) -> None:
    room_id = await world.room()
    anonymous = person("anonymous-1", is_named=False, ends=NOW + 30)
    await world.rooms.accept(anonymous, await world.code(room_id), NOW)
    assert "anonymous-1" not in await world.roles(room_id, NOW + 30)
    with pytest.raises(InvitationRefused, match="with a name"):
        await world.rooms.accept(anonymous, await world.code(room_id, "owner"), NOW)
    with pytest.raises(NotAllowed):
        await world.rooms.change_member(ANN, room_id, "anonymous-1", "owner", NOW)


async def test_invitations_and_credentials_are_bounded(world: World) -> None:
    room_id = await world.room()
    for _ in range(MAX_INVITATIONS_PER_ROOM):
        await world.code(room_id)
    with pytest.raises(TooMany):
        await world.code(room_id)
    asked = MakeCredential(kind="worker")
    for _ in range(MAX_CREDENTIALS_PER_ROOM - 1):
        await world.rooms.make_credential(ANN, room_id, asked, NOW)
    with pytest.raises(TooMany):
        await world.rooms.make_credential(ANN, room_id, asked, NOW)


async def test_a_long_address_makes_no_code(world: World) -> None:
    room_id = await world.room()
    with pytest.raises(BadRequest, match="too long"):
        await world.rooms.invite(
            ANN, room_id, InviteMember(), "http://" + "a" * 600, NOW
        )


# -- credentials --------------------


async def test_a_credential_is_taken_back_by_who_made_it_or_an_owner(
    world: World,
) -> None:
    room_id = await world.room()
    await world.join(room_id, BOB)
    await world.join(room_id, EVE)
    asked = MakeCredential(kind="worker", expires_in_s=60.0)
    for who in (BOB, ANN):
        made = await world.rooms.make_credential(BOB, room_id, asked, NOW)
        verified = world.tokens.verify_claims("worker", made.token, NOW)
        assert verified.credential_id == made.credential_id
        assert verified.expires_at == made.expires_at == NOW + 60.0
        with pytest.raises(NotAllowed):
            await world.rooms.revoke_credential(EVE, room_id, made.credential_id, NOW)
        await world.rooms.revoke_credential(who, room_id, made.credential_id, NOW)
        assert world.told.revoked.pop() == made.credential_id


async def test_what_is_shown_of_secrets(world: World) -> None:
    room_id = await world.room()
    made = await world.rooms.make_credential(
        ANN, room_id, MakeCredential(kind="worker"), NOW
    )
    details = await world.rooms.details(ANN, room_id, NOW)
    assert made.token not in repr(details)
    assert made.token not in repr(made)
