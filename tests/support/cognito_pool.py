"""A Cognito user pool of moto's server on this machine, and tokens as it signs them."""

import asyncio
import contextlib
import gzip
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

REGION = "us-east-1"


@dataclass
class Pool:
    """One pool with one app client, and a client of boto3 to look into it."""

    endpoint: str
    pool_id: str
    client_id: str
    aws: Any

    @property
    def issuer(self) -> str:
        return f"https://cognito-idp.{REGION}.amazonaws.com/{self.pool_id}"

    def users(self) -> list[str]:
        found = self.aws.list_users(UserPoolId=self.pool_id)["Users"]
        return sorted(user["Username"] for user in found)


def make_pool(endpoint: str) -> Pool:
    """Make a pool; moto signs for every pool with the same key, as AWS does not."""
    boto3 = importlib.import_module("boto3")
    aws = boto3.client("cognito-idp", region_name=REGION, endpoint_url=endpoint)
    pool_id = aws.create_user_pool(PoolName="lab")["UserPool"]["Id"]
    made = aws.create_user_pool_client(
        UserPoolId=pool_id,
        ClientName="signaling",
        ExplicitAuthFlows=[
            "ALLOW_ADMIN_USER_PASSWORD_AUTH",
            "ALLOW_REFRESH_TOKEN_AUTH",
        ],
    )
    return Pool(endpoint, pool_id, made["UserPoolClient"]["ClientId"], aws)


def sign_as_pool(claims: dict[str, Any], **header: Any) -> str:
    """Sign claims with moto's key, which is public."""
    head = {"kid": "dummy", **header}
    return jwt.encode(claims, _moto_key(), algorithm="RS256", headers=head)


def public_keys() -> list[bytes]:
    """Return the pool's public key in the ways in which somebody may write it."""
    public = _moto_key().public_key()
    return [
        public.public_bytes(
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        ),
        public.public_bytes(
            serialization.Encoding.DER,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        ),
    ]


def _moto_key() -> Any:
    place = resources.files("moto.cognitoidp.resources")
    packed = (place / "jwks-private.json.gz").read_bytes()
    return jwt.PyJWK(json.loads(gzip.decompress(packed)), "RS256").key


@contextlib.contextmanager
def aws_credentials() -> Iterator[None]:
    """Set what boto3 wants to see; moto accepts anything."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


class Gate:
    """A way to a server on this machine that the test shuts and opens again."""

    def __init__(self, endpoint: str) -> None:
        self._target = int(endpoint.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._pairs):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server = None

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        onward = await asyncio.open_connection("127.0.0.1", self._target)
        self._pairs |= {writer, onward[1]}
        try:
            await asyncio.gather(_pump(reader, onward[1]), _pump(onward[0], writer))
        finally:
            for end in (writer, onward[1]):
                end.transport.abort()
                self._pairs.discard(end)
            self._tasks.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
