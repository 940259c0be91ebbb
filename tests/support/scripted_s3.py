"""A server that answers S3 requests as a script says: faults that real ones hide."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class ScriptedS3:
    """Its requests so far, and what it answers the next: method, path, headers."""

    answer: Callable[[str, str, dict[str, str]], Answer | None]
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the requests of one connection; None leaves one without an answer."""
        with contextlib.suppress(
            asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError
        ):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                pairs = (line.split(": ", 1) for line in head[1:] if ": " in line)
                headers = {name.lower(): value for name, value in pairs}
                await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((method, path, headers))
                answer = self.answer(method, path, headers)
                if answer is None:
                    await asyncio.Event().wait()
                    return
                status, extra, body = answer
                fields = {"content-length": str(len(body)), **extra}
                lines = [
                    f"HTTP/1.1 {status} X",
                    *(f"{k}: {v}" for k, v in fields.items()),
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode())
                if method != "HEAD":
                    writer.write(body)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def scripted_s3(
    answer: Callable[[str, str, dict[str, str]], Answer | None],
) -> AsyncIterator[ScriptedS3]:
    """Run such a server on loopback."""
    script = ScriptedS3(answer)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()
