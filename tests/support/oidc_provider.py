"""A local OpenID provider and GitHub's likeness, real servers on this machine alone.

`OidcProvider` serves discovery, JWKS, the device and token endpoints, a page on which
a person approves, and GitHub's three routes. What it does wrong is set by the test.
"""

import asyncio
import base64
import contextlib
import hmac
import html
import json
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import (
    generate_private_key as generate_rsa_key,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

CLIENT_ID = "sleap-signaling"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass
class SigningKey:
    """One key pair of the provider."""

    key_id: str
    algorithm: str
    private: Any

    @classmethod
    def make(cls, key_id: str, algorithm: str = "ES256") -> "SigningKey":
        private = (
            generate_private_key(SECP256R1())
            if algorithm == "ES256"
            else generate_rsa_key(public_exponent=65537, key_size=2048)
        )
        return cls(key_id, algorithm, private)

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(
            claims,
            self.private,
            algorithm=self.algorithm,
            headers={"kid": self.key_id, **header},
        )

    def public(self) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        entry: dict[str, Any] = algorithm.to_jwk(
            self.private.public_key(), as_dict=True
        )
        return entry | {"kid": self.key_id, "use": "sig", "alg": self.algorithm}


@dataclass
class Person:
    """Who approves a code."""

    subject: str = "alice-1"
    name: str = "Alice"
    email: str = "alice@lab.example"
    email_verified: bool = True
    number: int = 4711
    organisations: list[str] = field(default_factory=list)


@dataclass
class _Flow:
    user_code: str
    nonce: str
    person: Person | None = None
    denied: bool = False
    expired: bool = False


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    """Write claims as a token whose signature is empty."""
    return f"{_part(header)}.{_part(claims)}."


def with_shared_secret(secret: bytes, claims: dict[str, Any], key_id: str) -> str:
    """Sign claims by HS256 with any bytes, such as a public key."""
    head = f"{_part({'alg': 'HS256', 'kid': key_id})}.{_part(claims)}"
    mac = hmac.digest(secret, head.encode(), "sha256")
    return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _part(value: dict[str, Any]) -> str:
    text = json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class OidcProvider:
    """The provider; an async context manager.

    Attributes:
        keys: what it signs with (the last) and shows (all).
        change: changes an ID token's claims before they are signed.
        forge: makes the ID token of claims, where it is not to be signed properly.
        fault: by path, an answer given instead of the right one; may be None again.
        asked: how often each path was asked.
        slow_down: how often the token endpoint still says that it is asked too often.
        gate: where set, the keys are handed out once it is open.
    """

    def __init__(self, interval_s: float = 1.0) -> None:
        self.keys = [SigningKey.make("first")]
        self.change: Callable[[dict[str, Any]], None] = lambda claims: None
        self.forge: Callable[[dict[str, Any]], str] | None = None
        self.describe: Callable[[dict[str, Any]], None] = lambda answer: None
        self.begun: Callable[[dict[str, Any]], None] = lambda answer: None
        self.fault: dict[str, Response] = {}
        self.asked: dict[str, int] = {}
        self.slow_down = 0
        self.gate: asyncio.Event | None = None
        self.clock: Callable[[], float] = time.time
        self._interval_s = interval_s
        self._flows: dict[str, _Flow] = {}
        self._tokens: dict[str, Person] = {}
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve; on the port of before, if there was one."""
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("127.0.0.1", self.port))
        opened.listen(64)
        self._socket, self.port = opened, opened.getsockname()[1]
        # Its own settings of the log would be those of the whole process.
        config = uvicorn.Config(
            self._application(),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign]
        self._task = asyncio.create_task(self._server.serve([opened]))

    async def stop(self) -> None:
        """Be unreachable."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = self._server.force_exit = True
            await self._task
        if self._socket is not None:
            self._socket.close()
        self._server = self._task = self._socket = None

    # -- what a person does -----------------------------------------------------------

    def approve(self, user_code: str, person: Person | None = None) -> None:
        self._by_code(user_code).person = person or Person()

    def deny(self, user_code: str) -> None:
        self._by_code(user_code).denied = True

    def expire(self, user_code: str) -> None:
        self._by_code(user_code).expired = True

    def rotate(self, key_id: str = "second", algorithm: str = "ES256") -> SigningKey:
        """Sign with a new key, and show both."""
        self.keys.append(SigningKey.make(key_id, algorithm))
        return self.keys[-1]

    def claims(self, person: Person, **more: Any) -> dict[str, Any]:
        now = self.clock()
        return {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": person.subject,
            "name": person.name,
            "email": person.email,
            "email_verified": person.email_verified,
            "iat": int(now),
            "exp": int(now) + 300,
            **more,
        }

    # -- routes -----------------------------------------------------------------------

    def _application(self) -> Starlette:
        def route(method: str, path: str, endpoint: Any) -> Route:
            async def counted(request: Request) -> Response:
                self.asked[path] = self.asked.get(path, 0) + 1
                if path in self.fault:
                    return self.fault[path]
                call: Callable[[Request], Awaitable[Response]] = endpoint
                return await call(request)

            return Route(path, counted, methods=[method])

        return Starlette(
            routes=[
                route("GET", "/.well-known/openid-configuration", self._discovery),
                route("GET", "/jwks", self._jwks),
                route("POST", "/device", self._device),
                route("POST", "/token", self._token),
                route("GET", "/activate", self._page),
                route("POST", "/activate", self._activate),
                route("POST", "/login/device/code", self._device),
                route("POST", "/login/oauth/access_token", self._github_token),
                route("GET", "/user", self._user),
                route("GET", "/user/orgs", self._organisations),
            ]
        )

    async def _discovery(self, request: Request) -> Response:
        answer = {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/jwks",
            "device_authorization_endpoint": f"{self.issuer}/device",
            "token_endpoint": f"{self.issuer}/token",
        }
        self.describe(answer)
        return JSONResponse(answer)

    async def _jwks(self, request: Request) -> Response:
        if self.gate is not None:
            await self.gate.wait()
        return JSONResponse({"keys": [key.public() for key in self.keys]})

    async def _device(self, request: Request) -> Response:
        form = await _form(request)
        if form.get("client_id") != CLIENT_ID:
            return JSONResponse({"error": "invalid_client"}, 401)
        device_code = secrets.token_urlsafe(24)
        letters = "".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(8))
        user_code = f"{letters[:4]}-{letters[4:]}"
        self._flows[device_code] = _Flow(user_code, str(form.get("nonce", "")))
        answer = {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": f"{self.issuer}/activate",
            "verification_uri_complete": f"{self.issuer}/activate?code={user_code}",
            "expires_in": 600,
            "interval": self._interval_s,
        }
        self.begun(answer)
        return JSONResponse(answer)

    async def _token(self, request: Request) -> Response:
        found = await self._redeem(request)
        if isinstance(found, str):
            return JSONResponse({"error": found}, 400)
        person, nonce = found
        claims = self.claims(person)
        if nonce:
            claims["nonce"] = nonce
        self.change(claims)
        make = self.forge or self.keys[-1].sign
        token = make(claims)
        return JSONResponse(
            {"access_token": "unused", "token_type": "Bearer", "id_token": token}
        )

    async def _github_token(self, request: Request) -> Response:
        found = await self._redeem(request)
        if isinstance(found, str):
            return JSONResponse({"error": found})
        token = secrets.token_urlsafe(24)
        self._tokens[token] = found[0]
        return JSONResponse({"access_token": token, "token_type": "bearer"})

    async def _redeem(self, request: Request) -> tuple[Person, str] | str:
        form = await _form(request)
        flow = self._flows.get(str(form.get("device_code")))
        if form.get("grant_type") != GRANT_TYPE or form.get("client_id") != CLIENT_ID:
            return "invalid_client"
        if flow is None:
            return "invalid_grant"
        if self.slow_down:
            self.slow_down -= 1
            return "slow_down"
        if flow.denied:
            return "access_denied"
        if flow.expired:
            return "expired_token"
        if flow.person is None:
            return "authorization_pending"
        del self._flows[str(form.get("device_code"))]
        return flow.person, flow.nonce

    async def _user(self, request: Request) -> Response:
        person = self._whose(request)
        if person is None:
            return JSONResponse({"message": "Bad credentials"}, 401)
        answer = {"id": person.number, "login": person.subject, "name": person.name}
        return JSONResponse(answer)

    async def _organisations(self, request: Request) -> Response:
        person = self._whose(request)
        if person is None:
            return JSONResponse({"message": "Bad credentials"}, 401)
        return JSONResponse([{"login": name} for name in person.organisations])

    async def _page(self, request: Request) -> Response:
        code = html.escape(request.query_params.get("code", ""), quote=True)
        return HTMLResponse(
            "<!doctype html><title>Sign in</title><form method=post>"
            f'<label>Code <input name=code value="{code}"></label>'
            "<button name=answer value=yes>Allow</button>"
            "<button name=answer value=no>Deny</button></form>"
        )

    async def _activate(self, request: Request) -> Response:
        form = await _form(request)
        try:
            flow = self._by_code(str(form.get("code")))
        except LookupError:
            return HTMLResponse("<!doctype html><p>There is no such code.</p>", 404)
        if form.get("answer") == "yes":
            flow.person = Person()
        else:
            flow.denied = True
        return HTMLResponse("<!doctype html><p>You may close this page.</p>")

    def _whose(self, request: Request) -> Person | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return self._tokens.get(token) if scheme.lower() == "bearer" else None

    def _by_code(self, user_code: str) -> _Flow:
        for flow in self._flows.values():
            if flow.user_code == user_code:
                return flow
        raise LookupError(user_code)


async def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode()))
