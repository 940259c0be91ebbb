"""What S3 servers may answer, over real sockets: words, in bounded time."""

import asyncio
import time
from pathlib import Path

import pytest
from support import store_servers
from support.registry_samples import manifest, model_id
from support.scripted_s3 import Answer, scripted_s3
from support.trained_models import local_model

from sleap_rtc_plugin.protocol.errors import (
    ModelNotFound,
    RegistryBusy,
    RtcError,
    StoreFull,
    StoreInvalid,
    StoreReadOnly,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.model_messages import PutAlias, SetNotes
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.registry import model_registry, remote_store
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.object_store import ObjectStore
from sleap_rtc_plugin.registry.room_manifest import encode_manifest
from sleap_rtc_plugin.registry.store_address import open_store

ROOM = "room-1"
MANIFEST = encode_manifest(manifest(1, 2))
DATE = "Mon, 23 Nov 2026 12:00:00 GMT"
FOUND: Answer = (200, {"etag": '"1"', "last-modified": DATE}, MANIFEST)


def xml(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()


def opened(endpoint: str) -> ObjectStore:
    return open_store(
        store_servers.address_of(endpoint), environment=store_servers.CREDENTIALS
    )


def is_probe(path: str) -> bool:
    return path.endswith("/conditions")


def answer_probe(method: str, headers: dict[str, str]) -> Answer:
    """Keep conditions, as every store that we use does."""
    return 412, {}, xml("PreconditionFailed")


@pytest.mark.parametrize("status", [404, 409, 412])
async def test_all_that_says_somebody_was_there_first_is_alike(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {404: "NoSuchKey", 409: "ConditionalRequestConflict", 412: "Precondition"}
    refusals = 3

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        nonlocal refusals
        if is_probe(path):
            return answer_probe(method, headers)
        if method == "GET":
            return FOUND
        assert headers["if-match"] == '"1"'
        if refusals:
            refusals -= 1
            return status, {}, xml(codes[status])
        return 200, {"etag": '"2"'}, b""

    async with scripted_s3(answer) as server:
        registry = ModelRegistry(opened(server.endpoint), ROOM)
        edit = SetNotes(model=model_id(1), notes="Good.")
        details = await registry.change(edit, "ann")
        assert details is not None
        assert details.record.notes == "Good."
        assert refusals == 0


async def test_it_gives_up_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_registry, "MAX_REGISTRY_RETRIES", 3)

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        return FOUND if method == "GET" else (412, {}, xml("PreconditionFailed"))

    async with scripted_s3(answer) as server:
        registry = ModelRegistry(opened(server.endpoint), ROOM)
        with pytest.raises(RegistryBusy):
            await registry.change(PutAlias(alias="a", model=model_id(1)), "ann")


async def test_a_server_that_ignores_conditions_is_not_written_to() -> None:
    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        return FOUND if method == "GET" else (200, {"etag": '"2"'}, b"")

    async with scripted_s3(answer) as server:
        registry = ModelRegistry(opened(server.endpoint), ROOM)
        with pytest.raises(StoreInvalid, match="it ignores the conditions"):
            await registry.change(PutAlias(alias="a", model=model_id(1)), "ann")
        assert all(is_probe(p) for method, p, _ in server.requests if method == "PUT")
        assert len((await registry.manifest()).models) == 2


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((403, {}, xml("AccessDenied")), StoreReadOnly, "refuses these credentials"),
        ((401, {}, xml("X")), StoreUnreachable, "does not know the credentials"),
        ((507, {}, xml("InsufficientStorage")), StoreFull, "it is full"),
        ((400, {}, xml("QuotaExceeded")), StoreFull, "it is full"),
        ((404, {}, xml("NoSuchBucket")), StoreUnreachable, "no bucket of this name"),
        ((418, {}, b"<html>"), StoreUnreachable, "it answers 418"),
    ],
)
async def test_what_a_server_says_to_writing(
    answer: Answer, error: type[RtcError], words: str
) -> None:
    def script(method: str, path: str, headers: dict[str, str]) -> Answer:
        return FOUND if method == "GET" else answer

    async with scripted_s3(script) as server:
        registry = ModelRegistry(opened(server.endpoint), ROOM)
        with pytest.raises(error, match=words):
            await registry.change(PutAlias(alias="a", model=model_id(1)), "ann")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, {}, xml("SignatureDoesNotMatch")), "refuses these credentials"),
        ((404, {}, xml("NoSuchBucket")), "no bucket of this name"),
        ((301, {}, b""), "it answers|does not answer as a store"),
        ((200, {}, b"<html>hello</html>"), "does not answer as a store|is damaged"),
    ],
)
async def test_what_a_server_says_to_reading(answer: Answer, words: str) -> None:
    async with scripted_s3(lambda method, path, headers: answer) as server:
        registry = ModelRegistry(opened(server.endpoint), ROOM)
        with pytest.raises(RtcError, match=words):
            await registry.manifest()


async def test_a_server_that_stumbles_is_asked_again() -> None:
    stumbles = 2

    def answer(method: str, path: str, headers: dict[str, str]) -> Answer:
        nonlocal stumbles
        if stumbles:
            stumbles -= 1
            return 503, {}, xml("SlowDown")
        return FOUND

    async with scripted_s3(answer) as server:
        registry = ModelRegistry(opened(server.endpoint), ROOM)
        assert len((await registry.manifest()).models) == 2


async def test_a_server_that_only_stumbles_ends_in_time() -> None:
    async with scripted_s3(lambda m, p, h: (503, {}, xml("SlowDown"))) as server:
        started = time.monotonic()
        with pytest.raises(StoreUnreachable, match="it answers 503"):
            await ModelRegistry(opened(server.endpoint), ROOM).manifest()
        assert time.monotonic() - started < remote_store.REGISTRY_TIMEOUT_S


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store, "REGISTRY_TIMEOUT_S", 0.3)
    async with scripted_s3(lambda m, p, h: None) as server:
        with pytest.raises(StoreUnreachable, match="it did not answer in time"):
            await ModelRegistry(opened(server.endpoint), ROOM).manifest()


async def test_nobody_at_home() -> None:
    async with scripted_s3(lambda m, p, h: None) as server:
        endpoint = server.endpoint
    with pytest.raises(StoreUnreachable, match="nothing listens there"):
        await ModelRegistry(opened(endpoint), ROOM).manifest()


async def test_words_hold_nothing_that_the_server_wrote() -> None:
    body = b"<Error><Code>Evil\x1b[31m<b>secret</b></Code></Error>"
    async with scripted_s3(lambda m, p, h: (400, {}, body)) as server:
        with pytest.raises(StoreUnreachable) as caught:
            await ModelRegistry(opened(server.endpoint), ROOM).manifest()
        assert "secret" not in str(caught.value)
        assert store_servers.SECRET_KEY not in str(caught.value)


# -- SeaweedFS itself ------------------------------------------------------------------


async def test_wrong_keys_readers_and_buckets_at_a_real_server(tmp_path: Path) -> None:
    with store_servers.seaweedfs(tmp_path / "server") as endpoint:
        address = store_servers.address_of(endpoint)
        writer = ModelRegistry(opened(endpoint), ROOM)
        model = local_model(tmp_path / "m")
        await writer.publish(model, publication=Publication(alias="a"), by="ann")
        reader_keys = {
            "AWS_ACCESS_KEY_ID": "reader-key",
            "AWS_SECRET_ACCESS_KEY": "reader-secret",
        }
        reader = ModelRegistry(open_store(address, environment=reader_keys), ROOM)
        details = await reader.describe("a")
        assert await reader.pull(details.record, tmp_path / "home")
        with pytest.raises(StoreReadOnly):
            await reader.change(SetNotes(model="a", notes="x"), "eve")
        with pytest.raises(StoreReadOnly):
            other = local_model(tmp_path / "other", seed=2)
            await reader.publish(other, publication=Publication(), by="eve")
        with pytest.raises(ModelNotFound):
            await reader.describe("b")
        wrong = {**store_servers.CREDENTIALS, "AWS_SECRET_ACCESS_KEY": "wrong"}
        stranger = ModelRegistry(open_store(address, environment=wrong), ROOM)
        with pytest.raises(StoreUnreachable):
            await stranger.manifest()
        elsewhere = open_store(
            address.replace("s3://lab/", "s3://nowhere/"),
            environment=store_servers.CREDENTIALS,
        )
        with pytest.raises(StoreUnreachable, match="no bucket"):
            await ModelRegistry(elsewhere, ROOM).manifest()
        await asyncio.sleep(0)
