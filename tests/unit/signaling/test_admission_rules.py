"""What a room token and an account are worth: every combination."""

import itertools
from typing import get_args

import pytest

from sleap_rtc_plugin.protocol.account_messages import (
    Access,
    CredentialKind,
    MemberRole,
)
from sleap_rtc_plugin.protocol.errors import NotAllowed, SignInRequired
from sleap_rtc_plugin.protocol.signaling_messages import Role
from sleap_rtc_signaling.admission import Pass, judge
from sleap_rtc_signaling.stores import Room
from sleap_rtc_signaling.stores.roster import Member

ACCESS = get_args(Access)
SHOWN = (None, *get_args(CredentialKind))
MEMBERS = (None, *get_args(MemberRole))

# Access, what is shown, who is a member: who may come in as a worker, as a client.
TOKEN, ACCOUNT, SIGN_IN, NO = "token", "account", "sign in", "no"
TABLE: dict[tuple[Access, CredentialKind | None, MemberRole | None], tuple[str, str]]
TABLE = {
    ("open", None, None): (SIGN_IN, SIGN_IN),
    ("open", None, "guest"): (NO, ACCOUNT),
    ("open", None, "member"): (ACCOUNT, ACCOUNT),
    ("open", None, "owner"): (ACCOUNT, ACCOUNT),
    ("open", "session", None): (TOKEN, TOKEN),
    ("open", "session", "guest"): (TOKEN, TOKEN),
    ("open", "session", "member"): (TOKEN, TOKEN),
    ("open", "session", "owner"): (TOKEN, TOKEN),
    ("open", "worker", None): (TOKEN, NO),
    ("open", "worker", "guest"): (TOKEN, ACCOUNT),
    ("open", "worker", "member"): (TOKEN, ACCOUNT),
    ("open", "worker", "owner"): (TOKEN, ACCOUNT),
    ("members", None, None): (SIGN_IN, SIGN_IN),
    ("members", None, "guest"): (NO, ACCOUNT),
    ("members", None, "member"): (ACCOUNT, ACCOUNT),
    ("members", None, "owner"): (ACCOUNT, ACCOUNT),
    ("members", "session", None): (SIGN_IN, SIGN_IN),
    ("members", "session", "guest"): (NO, ACCOUNT),
    ("members", "session", "member"): (ACCOUNT, ACCOUNT),
    ("members", "session", "owner"): (ACCOUNT, ACCOUNT),
    ("members", "worker", None): (TOKEN, NO),
    ("members", "worker", "guest"): (TOKEN, ACCOUNT),
    ("members", "worker", "member"): (TOKEN, ACCOUNT),
    ("members", "worker", "owner"): (TOKEN, ACCOUNT),
}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(itertools.product(ACCESS, SHOWN, MEMBERS))


@pytest.mark.parametrize(("access", "kind", "member_role"), TABLE)
@pytest.mark.parametrize("role", get_args(Role))
def test_who_may_come_in(
    access: Access,
    kind: CredentialKind | None,
    member_role: MemberRole | None,
    role: Role,
) -> None:
    as_worker, as_client = TABLE[access, kind, member_role]
    expected = as_worker if role == "worker" else as_client
    room = Room(
        room_id="room-1", owner="ann", created_at=0.0, expires_at=9.0, access=access
    )
    shown = None if kind is None else Pass("credential-1", kind, 5.0)
    member = None
    if member_role is not None:
        member = Member(
            account_id="bob", name="", role=member_role, added_at=0.0, expires_at=7.0
        )
    if expected in (SIGN_IN, NO):
        with pytest.raises(SignInRequired if expected == SIGN_IN else NotAllowed):
            judge(room, role, shown, member, "a server")
        return
    admission = judge(room, role, shown, member, "a server")
    assert role in admission.roles
    assert admission.expires_at == 9.0
    # Exactly what let the peer in can send it out again.
    by_token = admission.credential_id == "credential-1" and not admission.account_id
    by_account = admission.account_id == "bob" and not admission.credential_id
    assert (by_token, by_account) == (expected == TOKEN, expected == ACCOUNT)
    until = {TOKEN: 5.0 if kind == "worker" else None, ACCOUNT: 7.0}[expected]
    assert admission.until == until
