"""The calls of AWS Cognito, each in a thread of ours, bounded in number and in time.

boto3 blocks, and is imported when the first server asks for it. What AWS says in words
stays here: only the code of an error is logged. Called by the accounts of Cognito.
"""

import asyncio
import importlib
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import AccountsUnavailable
from sleap_rtc_signaling.accounts_config import CognitoConfig
from sleap_rtc_signaling.limits import (
    COGNITO_CALL_S,
    COGNITO_THREADS,
    COGNITO_TIMEOUT_S,
    MAX_COGNITO_CALLS,
)
from sleap_rtc_signaling.sections import ConfigError

__all__ = ["CognitoCalls", "CognitoRefused"]

_log = logging.getLogger(__name__)
_REFUSALS: Final = {
    "NotAuthorizedException",
    "UserNotFoundException",
    "InvalidParameterException",
    "UnauthorizedException",
    "UnsupportedTokenTypeException",
}


class CognitoRefused(Exception):
    """The pool does not know the user or the token, or not any more."""


class CognitoCalls:
    """Asks one user pool.

    Args:
        config: which pool.
        server: how the server is named in errors.

    Raises:
        ConfigError: boto3 is not installed.
    """

    def __init__(self, config: CognitoConfig, server: str) -> None:
        try:
            boto3 = importlib.import_module("boto3")
            settings = importlib.import_module("botocore.config").Config(
                connect_timeout=COGNITO_CALL_S,
                read_timeout=COGNITO_CALL_S,
                max_pool_connections=COGNITO_THREADS,
                retries={"max_attempts": 2, "mode": "standard"},
            )
            self._error: Any = importlib.import_module("botocore.exceptions")
        except ImportError:
            raise ConfigError(
                "Accounts of Cognito need boto3; install sleap-rtc-plugin[aws]."
            ) from None
        self._server = server
        self._waiting = 0
        self._make = partial(
            boto3.client,
            "cognito-idp",
            region_name=config.region,
            endpoint_url=config.endpoint_url or None,
            config=settings,
        )
        self._client: Any = None
        self._threads = ThreadPoolExecutor(COGNITO_THREADS, "cognito")

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call one method of boto3's client.

        Raises:
            CognitoRefused: the pool says no.
            AccountsUnavailable: AWS does not answer, or not to this server.
        """
        if self._waiting >= MAX_COGNITO_CALLS:
            raise self.unavailable("too many wait for it")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(
                self._threads, partial(self._call, name, arguments)
            )
            # A thread that is late ends by itself; its place is counted until then.
            work.add_done_callback(self._done)
        except BaseException:
            self._waiting -= 1
            raise
        try:
            async with asyncio.timeout(COGNITO_TIMEOUT_S):
                return await asyncio.shield(work)
        except TimeoutError:
            raise self.unavailable("it does not answer") from None

    def unavailable(self, reason: str) -> AccountsUnavailable:
        """Make the error that says what is wrong with Cognito."""
        return AccountsUnavailable(server=self._server, reason=f"Cognito: {reason}")

    async def close(self) -> None:
        """Wait for the threads; each is bounded in time."""
        await asyncio.to_thread(self._threads.shutdown, True, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _done(self, work: "asyncio.Future[dict[str, Any]]") -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # where nobody waits any more, nobody minds

    def _call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run in a thread."""
        try:
            if self._client is None:
                self._client = self._make()
            answer: dict[str, Any] = getattr(self._client, name)(**arguments)
        except self._error.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))[:80]
            if code in _REFUSALS:
                raise CognitoRefused from None
            _log.warning("Cognito refuses %s: %r", name, code)
            raise self.unavailable("it refuses this server; see its log") from None
        except (self._error.BotoCoreError, OSError, ValueError) as error:
            _log.warning("Cognito does not answer %s: %s", name, type(error).__name__)
            raise self.unavailable("it does not answer") from None
        return answer
