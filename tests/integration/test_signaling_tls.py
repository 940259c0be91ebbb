"""The server's own TLS, and what is read again while it serves."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest
from support.nginx_proxy import make_certificate
from support.signaling_lab import Clock, Lab, bearer, config, registration
from websockets.asyncio.client import connect

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.signaling_messages import Registered
from sleap_rtc_signaling import server as server_module
from sleap_rtc_signaling.config import ConfigError, TlsConfig
from sleap_rtc_signaling.server import SignalingServer
from sleap_rtc_signaling.signing_keys import KEY_FILE, rotate


def files(folder: Path) -> TlsConfig:
    folder.mkdir(exist_ok=True)
    make_certificate(folder)
    return TlsConfig(cert=folder / "certificate.pem", key=folder / "key.pem")


def trusting(tls: TlsConfig) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=tls.cert)


async def served(server: SignalingServer) -> bytes:
    """Return the certificate that the server shows, as DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return bytes(shown)


async def test_rest_and_websocket_are_encrypted(tmp_path: Path) -> None:
    tls = files(tmp_path / "tls")
    async with SignalingServer(config(tmp_path, tls=tls)) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        assert server.websocket_url.startswith("wss://")
        trusted = trusting(tls)
        async with httpx.AsyncClient(base_url=server.url, verify=trusted) as http:
            health = await http.get("/health")
            assert health.headers["strict-transport-security"]
            account = (await http.post("/anonymous-signin")).json()["token"]
            made = (await http.post("/create-room", headers=bearer(account))).json()
        async with connect(
            server.websocket_url, ssl=trusted, compression=None
        ) as socket:
            message = registration((made["room_id"], made["token"]), "client-1")
            await socket.send(codec.encode_signaling(message))
            reply = codec.decode_server_message(await socket.recv())
            assert isinstance(reply, Registered)


async def test_plain_http_and_old_tls_get_nothing(tmp_path: Path) -> None:
    tls = files(tmp_path / "tls")
    async with SignalingServer(config(tmp_path, tls=tls)) as server:
        async with httpx.AsyncClient() as http:
            with pytest.raises(httpx.TransportError):
                await http.get(f"http://127.0.0.1:{server.port}/health")
        old = trusting(tls)
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=old)


async def test_a_renewed_certificate_is_taken_up_and_nobody_disconnected(
    tmp_path: Path,
) -> None:
    tls = files(tmp_path / "tls")
    first = trusting(tls)
    async with SignalingServer(config(tmp_path, tls=tls)) as server:
        before = await served(server)
        async with httpx.AsyncClient(base_url=server.url, verify=first) as http:
            assert (await http.get("/health")).status_code == 200
            files(tmp_path / "tls")
            assert await served(server) == before
            server.reload()
            assert await served(server) != before
            # This connection goes on as it began.
            assert (await http.get("/health")).status_code == 200


@pytest.mark.parametrize("broken", ["cert", "key", "other key"])
async def test_what_cannot_be_used_changes_nothing(tmp_path: Path, broken: str) -> None:
    tls = files(tmp_path / "tls")
    assert tls.key is not None
    async with SignalingServer(config(tmp_path, tls=tls)) as server:
        before = await served(server)
        if broken == "cert":
            tls.cert.write_text("nothing")
        elif broken == "key":
            tls.key.unlink()
        else:
            other = files(tmp_path / "other").key
            assert other is not None
            tls.key.write_bytes(other.read_bytes())
        with pytest.raises(ConfigError, match=r"key\.pem"):
            server.reload()
        assert await served(server) == before


@pytest.mark.parametrize("missing", ["certificate.pem", "key.pem"])
async def test_a_server_without_its_files_does_not_start(
    tmp_path: Path, missing: str
) -> None:
    tls = files(tmp_path / "tls")
    (tmp_path / "tls" / missing).unlink()
    with pytest.raises(ConfigError, match="No such file"):
        await SignalingServer(config(tmp_path, tls=tls)).start()


async def test_the_public_address_is_what_people_are_told(tmp_path: Path) -> None:
    settings = config(tmp_path, public_url="https://signaling.lab.example/")
    async with SignalingServer(settings) as server:
        assert server.url == "https://signaling.lab.example"
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"http://127.0.0.1:{server.port}/create-room")
        assert answer.json()["fields"]["server"] == "https://signaling.lab.example"


async def test_a_key_made_beside_a_running_server_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "KEYS_CHECK_S", 0.01)
    clock = Clock()
    settings = config(tmp_path)
    async with SignalingServer(settings, clock=clock) as server:
        lab = Lab(server, clock)
        room = await lab.room()
        worker = await lab.join(room, "worker-1", "worker")
        rotate(settings.data_dir, clock.now)
        # The old key's tokens stay good, the new key's are good at once elsewhere.
        lab.advance(120)
        other = settings.model_copy(update={"port": 0})
        async with asyncio.timeout(10):
            while True:
                async with SignalingServer(other, clock=clock) as second:
                    beside = Lab(second, clock)
                    made = await beside.room()
                    await beside.close()
                _, reply = await lab.register(made, "client-1")
                if isinstance(reply, Registered):
                    break
        await lab.join(room, "client-2")
        assert worker.socket.close_code is None
        await lab.close()
    assert (settings.data_dir / KEY_FILE).exists()
