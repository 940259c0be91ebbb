"""Signing in by a code at a provider, brokered by this server (RFC 8628).

The client talks to this server alone, the user opens the provider's page, and what the
provider hands out stays here. What is known of a flow lies in records that end, so any
instance may be asked. Which provider it is, is said by what implements `Provider`.
"""

import hashlib
import logging
import secrets
from typing import Final, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sleap_rtc_plugin.protocol.account_messages import (
    Account,
    DeviceFlow,
    DevicePending,
    SignInMethod,
)
from sleap_rtc_plugin.protocol.errors import SignInRefused
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_NAME_CHARS
from sleap_rtc_signaling.accounts.sign_ins import SignIns
from sleap_rtc_signaling.limits import FLOW_SLOWER_S, MAX_FLOW_INTERVAL_S
from sleap_rtc_signaling.stores.records import Record, RecordKey, Records

__all__ = ["DeviceCode", "DeviceFlows", "Person", "Provider", "Refused", "Waiting"]

_log = logging.getLogger(__name__)
_KIND: Final = "sign-in-flow"
_FLOW_BYTES: Final = 32
_NO_FLOW: Final = "it took too long, was finished before, or never began"


class DeviceCode(Struct, frozen=True, kw_only=True):
    """What a provider has begun; checked.

    Attributes:
        device_code: by which this server asks; a secret of this server.
        user_code: what the user enters.
        verification_uri: where.
        verification_uri_complete: the same with the code in it; may be empty.
        lifetime_s: how long the user has.
        interval_s: how long to wait between two questions.
        nonce: what an ID token with a nonce must repeat.
    """

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    lifetime_s: float
    interval_s: float
    nonce: str

    def __repr__(self) -> str:
        """Show the code without its secret."""
        return f"DeviceCode({self.user_code!r})"


class Person(Struct, frozen=True, kw_only=True):
    """Who signed in, as the provider says; verified, and allowed.

    Attributes:
        issuer: which provider it is, the same always.
        subject: whom it means, the same always.
        name: what the person is called, as the provider has it.
    """

    issuer: str
    subject: str
    name: str


class Waiting(Struct, frozen=True):
    """The user has not finished; `slower` if the provider is asked too often."""

    slower: bool = False


class Refused(Struct, frozen=True):
    """The flow came to no good end; the reason is one of ours."""

    reason: str


class Provider(Protocol):
    """One provider at which persons sign in."""

    label: str

    async def begin(self, now: float) -> DeviceCode:
        """Begin a flow.

        Raises:
            AccountsUnavailable: the provider does not answer, or makes no sense.
        """

    async def ask(
        self, device_code: str, nonce: str, now: float
    ) -> Person | Waiting | Refused:
        """Ask whether the user has finished.

        Raises:
            AccountsUnavailable: as `begin`.
        """

    async def close(self) -> None:
        """Let go of everything."""


class _Flow(Struct, frozen=True, kw_only=True):
    method: str
    device_code: str
    nonce: str
    interval_s: float
    next_at: float


class DeviceFlows:
    """The flows of one provider.

    Args:
        method: how the way to sign in is named.
        provider: the provider.
        records: where the flows are.
        sign_ins: what a person gets in the end.
        server: how the server is named in errors.
    """

    def __init__(
        self,
        method: str,
        provider: Provider,
        records: Records,
        sign_ins: SignIns,
        server: str,
    ) -> None:
        self._method = method
        self._provider = provider
        self._records = records
        self._sign_ins = sign_ins
        self._server = server

    def described(self) -> SignInMethod:
        """Return what a client is told of this way."""
        return SignInMethod(
            name=self._method, kind="device", label=self._provider.label, is_named=True
        )

    async def start(self, now: float) -> DeviceFlow:
        """Begin a flow.

        Raises:
            AccountsUnavailable: the provider does not answer, or makes no sense.
        """
        code = await self._provider.begin(now)
        flow_id = secrets.token_urlsafe(_FLOW_BYTES)
        flow = _Flow(
            method=self._method,
            device_code=code.device_code,
            nonce=code.nonce,
            interval_s=code.interval_s,
            next_at=now,
        )
        expires_at = now + code.lifetime_s
        record = Record(_key(flow_id), msgspec.json.encode(flow), expires_at)
        if not await self._records.create(record, now):
            raise self._refused("it was begun twice")
        return DeviceFlow(
            flow_id=flow_id,
            user_code=code.user_code,
            verification_uri=code.verification_uri,
            verification_uri_complete=code.verification_uri_complete,
            expires_at=expires_at,
            interval_s=code.interval_s,
        )

    async def poll(self, flow_id: str, now: float) -> Account | DevicePending:
        """Ask whether the user has finished; the provider is asked at its own pace.

        Raises:
            SignInRefused: the user said no, took too long, or there is no such flow.
            AccountsUnavailable: the provider does not answer.
        """
        record = await self._records.get(_key(flow_id), now)
        if record is None:
            raise self._refused(_NO_FLOW)
        flow = msgspec.json.decode(record.value, type=_Flow)
        if flow.method != self._method:
            raise self._refused(_NO_FLOW)
        if now < flow.next_at:
            return DevicePending(interval_s=flow.next_at - now)
        asking = replace(flow, next_at=now + flow.interval_s)
        if not await self._swap(record, asking, now):
            # Another client of this flow, or another instance, asks at the moment.
            return DevicePending(interval_s=flow.interval_s)
        outcome = await self._provider.ask(flow.device_code, flow.nonce, now)
        match outcome:
            case Waiting(slower=True):
                interval_s = min(flow.interval_s + FLOW_SLOWER_S, MAX_FLOW_INTERVAL_S)
                slower = replace(flow, interval_s=interval_s, next_at=now + interval_s)
                current = await self._records.get(record.key, now)
                if current is not None:
                    await self._swap(current, slower, now)
                return DevicePending(interval_s=interval_s)
            case Waiting():
                return DevicePending(interval_s=flow.interval_s)
        # It is over. Who deletes the record is the one who gets the account.
        if not await self._records.delete(record.key):
            raise self._refused(_NO_FLOW)
        if isinstance(outcome, Refused):
            _log.info("somebody was not signed in by %s: %s", self._method, outcome)
            raise self._refused(outcome.reason)
        account_id = _account_id(outcome)
        name = clean_text(outcome.name, MAX_NAME_CHARS)
        return await self._sign_ins.begin(account_id, name, self._method, now)

    async def close(self) -> None:
        """Let go of the provider."""
        await self._provider.close()

    async def _swap(self, record: Record, flow: _Flow, now: float) -> bool:
        changed = Record(
            record.key,
            msgspec.json.encode(flow),
            record.expires_at,
            record.index,
            record.version,
        )
        return await self._records.replace(changed, now)

    def _refused(self, reason: str) -> SignInRefused:
        return SignInRefused(server=self._server, reason=reason)


def _account_id(person: Person) -> str:
    """Derive an id that tells nobody who the person is at the provider."""
    text = f"{person.issuer}\0{person.subject}".encode("utf-8", "replace")
    return f"user-{hashlib.sha256(text).hexdigest()[:32]}"


def _key(flow_id: str) -> RecordKey:
    # Only a digest is kept: who reads the store cannot finish a flow of another.
    digest = hashlib.sha256(flow_id.encode("utf-8", "replace")).hexdigest()
    return RecordKey(_KIND, digest)
