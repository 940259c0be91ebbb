"""What is asked of a provider over HTTP: bounded in size and time, never redirected.

Whatever a provider answers is hostile until it is checked, and none of its words reach
an error or a log. Called by the providers and by their keys.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from sleap_rtc_plugin.protocol.errors import AccountsUnavailable
from sleap_rtc_plugin.protocol.limits import MAX_URL_CHARS
from sleap_rtc_signaling.limits import MAX_PROVIDER_ANSWER_BYTES, PROVIDER_TIMEOUT_S

__all__ = ["ProviderHttp", "is_secure_url"]

_log = logging.getLogger(__name__)
_SERVER_FAULT: Final = 500


class ProviderHttp:
    """One provider's HTTP.

    Args:
        label: how the provider is named in errors and logs.
        server: how this server is named in errors.
        timeout_s: how long one question may take in all.
    """

    def __init__(
        self, label: str, server: str, timeout_s: float = PROVIDER_TIMEOUT_S
    ) -> None:
        self._label = label
        self._server = server
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(timeout=timeout_s, follow_redirects=False)

    async def get(
        self, url: str, token: str = ""
    ) -> tuple[int, dict[str, Any] | list[Any]]:
        """Ask for JSON.

        Args:
            url: where; checked by the caller with `is_secure_url`.
            token: goes into `Authorization: Bearer`.

        Returns:
            The status and the answer.

        Raises:
            AccountsUnavailable: there is no answer, or none that makes sense.
        """
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self._ask("GET", url, headers, None)

    async def post(
        self, url: str, form: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """Send a form, and return the status and the object that comes back.

        Raises:
            AccountsUnavailable: as `get`.
        """
        status, answer = await self._ask("POST", url, {}, form)
        if not isinstance(answer, dict):
            raise self.unavailable("its answer makes no sense")
        return status, answer

    def unavailable(self, reason: str) -> AccountsUnavailable:
        """Make the error that says what is wrong with the provider."""
        return AccountsUnavailable(
            server=self._server, reason=f"{self._label}: {reason}"
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
    ) -> tuple[int, dict[str, Any] | list[Any]]:
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(
                    method,
                    url,
                    headers={"accept": "application/json", **headers},
                    data=form,
                ) as response,
            ):
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_PROVIDER_ANSWER_BYTES:
                        raise self.unavailable("its answer is too long")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            _log.warning("%s does not answer: %s", self._label, type(error).__name__)
            raise self.unavailable("it does not answer") from None
        if response.status_code >= _SERVER_FAULT:
            _log.warning("%s answers with %d", self._label, response.status_code)
            raise self.unavailable("it is out of order")
        try:
            answer = msgspec.json.decode(bytes(body), type=dict[str, Any] | list[Any])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            _log.warning("%s answers with what is no JSON object", self._label)
            raise self.unavailable("its answer makes no sense") from None
        return response.status_code, answer


def is_secure_url(url: object) -> bool:
    """Tell whether `url` is `https`, or `http` on this machine alone."""
    if not isinstance(url, str) or not 0 < len(url) <= MAX_URL_CHARS:
        return False
    if not url.isascii() or any(c <= " " or c in '"<>\\^`{|}\x7f' for c in url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
