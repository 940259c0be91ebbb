"""What the REST routes take and answer, for programs: an OpenAPI description.

One line for each route, beside the messages of the protocol from which the schemas are
made; it changes nothing of what the routes do. Tests hold it against the real routes,
and the server gives it at `/openapi.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from sleap_rtc_plugin import __version__
from sleap_rtc_plugin.protocol.account_messages import (
    AcceptInvitation,
    Account,
    AccountInfo,
    ChangeMember,
    ChangeRoom,
    ClaimPairing,
    CreateRoom,
    Credential,
    DeleteRoom,
    DeviceFlow,
    DevicePending,
    FinishPairing,
    Invitation,
    InviteMember,
    MakeCredential,
    OpenPairing,
    Pairing,
    PairingState,
    PollDevice,
    Refresh,
    RevokeById,
    RoomDetails,
    RoomInfo,
    RoomList,
    RoomMade,
    SignInMethods,
    SignOut,
)
from sleap_rtc_plugin.protocol.limits import MAX_PAIRING_NUMBER
from sleap_rtc_plugin.protocol.relay_messages import IceServerList
from sleap_rtc_plugin.protocol.signaling_messages import Id

__all__ = ["OPERATIONS", "PATH", "Operation", "description"]

PATH: Final = "/openapi.json"

Needs = Literal["nothing", "account", "room", "account or room"]
"""Which token a route asks for."""

Kinds = tuple[type[Struct], ...]
"""What a body may be: one of them."""


class Refusal(Struct, frozen=True):
    """Why a request was refused: `message` is a sentence for a person."""

    code: str
    message: str
    fields: dict[str, str]


class Health(Struct, frozen=True):
    """The answer of `GET /health`: the process answers."""

    status: Literal["ok"]
    version: str


class Ready(Struct, frozen=True):
    """The answer of `GET /ready`: what the server stands on works too, or it leaves."""

    status: Literal["ready", "draining"]


class Description(Struct, frozen=True):
    """The answer of `GET /openapi.json`: OpenAPI 3.1 section 4.8.1."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


class SignedOut(Struct, frozen=True):
    """The answer of `POST /sign-out`."""

    account_id: str


class RoomDeleted(Struct, frozen=True):
    """The answer of `POST /delete-peers-and-room`."""

    room_id: str


class Done(Struct, frozen=True):
    """An answer that says no more than that it was done."""


@dataclass(frozen=True)
class Operation:
    """One route.

    Attributes:
        method: GET or POST.
        path: with its parameters in braces.
        summary: what it does, in a line.
        answers: what an answer may be, by its status; nothing is text.
        needs: the token that it asks for.
        body: what it reads; None where it reads none.
        body_may_miss: whether no body is as good as an empty object.
        refusals: statuses beside those that any route may have.
        query: the parameters after the question mark.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    answers: Mapping[int, Kinds]
    needs: Needs = "nothing"
    body: type[Struct] | None = None
    body_may_miss: bool = False
    refusals: tuple[int, ...] = ()
    query: tuple[str, ...] = ()


def _ok(*kinds: type[Struct]) -> dict[int, Kinds]:
    return {200: kinds}


_ROOM: Final = "/rooms/{room_id}"
_NUMBER: Final = "/pairings/{number}"
_FOREIGN: Final = (403, 404)
_SIGN_IN: Final = (403, 409)

OPERATIONS: Final = (
    Operation(
        "POST",
        "/anonymous-signin",
        "Make an account that asks nobody.",
        _ok(Account),
        refusals=_SIGN_IN,
    ),
    Operation("GET", "/sign-in", "List the ways to sign in.", _ok(SignInMethods)),
    Operation(
        "POST",
        "/sign-in/{name}",
        "Sign in at once, or begin to sign in at a provider (RFC 8628).",
        _ok(Account, DeviceFlow),
        refusals=_SIGN_IN,
    ),
    Operation(
        "POST",
        "/sign-in/{name}/poll",
        "Ask whether the user has finished at the provider.",
        {200: (Account,), 202: (DevicePending,)},
        body=PollDevice,
        refusals=_SIGN_IN,
    ),
    Operation(
        "POST",
        "/refresh",
        "Change a refresh token for the next account token.",
        _ok(Account),
        body=Refresh,
        refusals=(401, *_SIGN_IN),
    ),
    Operation(
        "POST",
        "/sign-out",
        "End a sign-in, and its refresh token.",
        _ok(SignedOut),
        needs="account",
        body=SignOut,
        body_may_miss=True,
    ),
    Operation("GET", "/account", "Say who asks.", _ok(AccountInfo), needs="account"),
    Operation(
        "POST",
        "/create-room",
        "Make a room; the account owns it.",
        _ok(RoomMade),
        needs="account",
        body=CreateRoom,
        body_may_miss=True,
        refusals=(403, 409),
    ),
    Operation(
        "POST",
        "/delete-peers-and-room",
        "End a room and disconnect everybody in it.",
        _ok(RoomDeleted),
        needs="account",
        body=DeleteRoom,
        refusals=_FOREIGN,
    ),
    Operation(
        "GET",
        "/rooms",
        "List the rooms of which the account is a member.",
        _ok(RoomList),
        needs="account",
    ),
    Operation(
        "GET",
        _ROOM,
        "Show a room as its member sees it.",
        _ok(RoomDetails),
        needs="account",
        refusals=_FOREIGN,
    ),
    Operation(
        "POST",
        _ROOM,
        "Rename a room, or change who may enter.",
        _ok(RoomInfo),
        needs="account",
        body=ChangeRoom,
        body_may_miss=True,
        refusals=(*_FOREIGN, 409),
    ),
    Operation(
        "POST",
        f"{_ROOM}/members",
        "Change what a member may do, or remove it.",
        _ok(Done),
        needs="account",
        body=ChangeMember,
        refusals=(*_FOREIGN, 409),
    ),
    Operation(
        "POST",
        f"{_ROOM}/invitations",
        "Make an invitation that is good once.",
        _ok(Invitation),
        needs="account",
        body=InviteMember,
        body_may_miss=True,
        refusals=(*_FOREIGN, 409),
    ),
    Operation(
        "POST",
        f"{_ROOM}/invitations/revoke",
        "Take an invitation back.",
        _ok(Done),
        needs="account",
        body=RevokeById,
        refusals=_FOREIGN,
    ),
    Operation(
        "POST",
        "/accept-invitation",
        "Become a member by an invitation.",
        _ok(RoomInfo),
        needs="account",
        body=AcceptInvitation,
        refusals=(*_FOREIGN, 409),
    ),
    Operation(
        "POST",
        f"{_ROOM}/credentials",
        "Make a room token: for a session string, or for a worker alone.",
        _ok(Credential),
        needs="account",
        body=MakeCredential,
        refusals=(*_FOREIGN, 409),
    ),
    Operation(
        "POST",
        f"{_ROOM}/credentials/revoke",
        "Take a room token back; who entered by it is disconnected.",
        _ok(Done),
        needs="account",
        body=RevokeById,
        refusals=_FOREIGN,
    ),
    Operation(
        "POST",
        "/pairings",
        "Open a pairing for a session string of the token's room.",
        _ok(Pairing),
        needs="room",
        body=OpenPairing,
        refusals=(403, 404, 409),
    ),
    Operation(
        "POST",
        f"{_NUMBER}/claim",
        "Take the one try that a pairing code has.",
        _ok(PairingState),
        body=ClaimPairing,
        body_may_miss=True,
        refusals=(404,),
    ),
    *(
        Operation(
            "POST",
            f"{_NUMBER}/{step}",
            summary,
            _ok(PairingState if step != "close" else Done),
            body=FinishPairing,
            refusals=(404,),
        )
        for step, summary in (
            ("answer", "Say the claimer's SPAKE2 message and proof."),
            ("finish", "Say the worker's proof, and the sealed session string."),
            ("state", "Ask how far a pairing is."),
            ("close", "Give a pairing up."),
        )
    ),
    Operation(
        "GET",
        "/ice-servers",
        "List the STUN and TURN servers, and the relay of last resort.",
        _ok(IceServerList),
        needs="account or room",
        refusals=_FOREIGN,
        query=("room_id",),
    ),
    Operation("GET", "/health", "Say that the process answers.", _ok(Health)),
    Operation(
        "GET",
        "/ready",
        "Say that the server may be used.",
        {200: (Ready,), 503: (Ready, Refusal)},
    ),
    Operation("GET", "/metrics", "Count, for Prometheus.", _ok()),
    Operation("GET", PATH, "Give this description.", _ok(Description)),
)
"""Every route, in the order of PROTOCOL.md."""

_EVERYWHERE: Final = (429, 500, 503)
_WITH_TOKEN: Final = 401
_WITH_BODY: Final = (400, 413)
_WITH_PARAMETERS: Final = 400
_SCHEMA: Final = "#/components/schemas/{name}"

_PARAMETERS: Final[Mapping[str, Any]] = {
    "name": Id,
    "room_id": Id,
    "number": int,
}


@cache
def description() -> bytes:
    """Return the OpenAPI 3.1 description, as JSON."""
    kinds: list[Any] = [Refusal]
    for operation in OPERATIONS:
        kinds += [kind for answered in operation.answers.values() for kind in answered]
        kinds += [operation.body] if operation.body else []
    schemas, components = msgspec.json.schema_components(
        list(dict.fromkeys(kinds)), ref_template=_SCHEMA
    )
    schema_of = dict(zip(dict.fromkeys(kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        entry = paths.setdefault(operation.path, {})
        entry[operation.method.lower()] = _described(operation, schema_of)
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "SLEAP remote: signaling server", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "account": {"type": "http", "scheme": "bearer"},
                "room": {"type": "http", "scheme": "bearer"},
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(_ecma(whole)), indent=1)


def _described(operation: Operation, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _parameter(name)}
        for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": _parameter(name)}
        for name in operation.query
    ]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{operation.path.replace('/', '-')}",
        "responses": {
            str(status): _answered(status, [schema_of[kind] for kind in kinds])
            for status, kinds in operation.answers.items()
        },
    }
    refusals = {*_EVERYWHERE, *operation.refusals}
    if parameters:
        described["parameters"] = parameters
        refusals.add(_WITH_PARAMETERS)
    if operation.needs != "nothing":
        described["security"] = [{name: []} for name in operation.needs.split(" or ")]
        refusals.add(_WITH_TOKEN)
    if operation.body:
        described["requestBody"] = {
            "required": not operation.body_may_miss,
            "content": {"application/json": {"schema": schema_of[operation.body]}},
        }
        refusals.update(_WITH_BODY)
    for status in sorted(refusals - operation.answers.keys()):
        described["responses"][str(status)] = _answered(status, [schema_of[Refusal]])
    return described


def _answered(status: int, schemas: list[Any]) -> dict[str, Any]:
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    content = (
        {"application/json": {"schema": schema}} if schemas else {"text/plain": {}}
    )
    meaning = "Done." if status < _WITH_PARAMETERS else "Refused."
    return {"description": meaning, "content": content}


def _parameter(name: str) -> Any:
    if name == "number":
        return {"type": "integer", "minimum": 1, "maximum": MAX_PAIRING_NUMBER}
    return msgspec.json.schema(_PARAMETERS[name])


def _ecma(value: Any) -> Any:
    """Write patterns as ECMA-262 has them, where `$` is the very end."""
    if isinstance(value, dict):
        return {
            key: item.replace(r"\Z", "$")
            if key == "pattern" and isinstance(item, str)
            else _ecma(item)
            for key, item in value.items()
        }
    return [_ecma(item) for item in value] if isinstance(value, list) else value
