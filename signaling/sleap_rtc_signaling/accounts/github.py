"""GitHub, which signs no ID token: who signed in is asked of its API.

The access token is used for this one question and then forgotten. GitHub Enterprise
is the same at other addresses. Called by the device flows.
"""

from typing import Any, Final

from sleap_rtc_signaling.accounts.device_answers import (
    GRANT_TYPE,
    read_device_code,
    read_refusal,
)
from sleap_rtc_signaling.accounts.device_flow import (
    DeviceCode,
    Person,
    Refused,
    Waiting,
)
from sleap_rtc_signaling.accounts.provider_http import ProviderHttp, is_secure_url
from sleap_rtc_signaling.accounts_config import OidcConfig
from sleap_rtc_signaling.sections import ConfigError

__all__ = ["GitHubProvider"]

_OK: Final = 200
_WEB: Final = "https://github.com"
_API: Final = "https://api.github.com"
_ORGANISATIONS: Final = "/user/orgs?per_page=100"


class GitHubProvider:
    """`Provider` for GitHub.

    Args:
        config: the administrator's settings.
        server: how the server is named in errors.

    Raises:
        ConfigError: the settings make no sense.
    """

    def __init__(self, config: OidcConfig, server: str) -> None:
        self._web = (config.issuer or _WEB).rstrip("/")
        self._api = (config.api_url or _API).rstrip("/")
        if not is_secure_url(self._web) or not is_secure_url(self._api):
            raise ConfigError(
                f"The addresses of the provider {config.name} must begin with https."
            )
        if config.allowed_domains:
            raise ConfigError(
                f"The provider {config.name} is GitHub, so it has no allowed_domains; "
                "use allowed_organisations or allowed_subjects."
            )
        self.label = config.label or "GitHub"
        self._config = config
        self._http = ProviderHttp(self.label, server)

    async def begin(self, now: float) -> DeviceCode:
        """Begin a flow."""
        default = "read:org" if self._config.allowed_organisations else ""
        form = {
            "client_id": self._config.client_id,
            "scope": self._config.scope or default,
        }
        status, answer = await self._http.post(f"{self._web}/login/device/code", form)
        code = read_device_code(answer, "") if status == _OK else None
        if code is None:
            raise self._http.unavailable("it begins no sign-in for this server")
        return code

    async def ask(
        self, device_code: str, nonce: str, now: float
    ) -> Person | Waiting | Refused:
        """Ask whether the user has finished."""
        form = {
            "client_id": self._config.client_id,
            "device_code": device_code,
            "grant_type": GRANT_TYPE,
        }
        if self._config.client_secret:
            form["client_secret"] = self._config.client_secret
        url = f"{self._web}/login/oauth/access_token"
        status, answer = await self._http.post(url, form)
        refusal = read_refusal(answer)
        if refusal is not None:
            return refusal
        token = answer.get("access_token")
        if status != _OK or not isinstance(token, str) or not _is_plain(token):
            return Refused("the provider did not say who it was")
        status, user = await self._http.get(f"{self._api}/user", token)
        if status != _OK or not isinstance(user, dict):
            return Refused("the provider did not say who it was")
        # A login can be given up and taken by another; the number stays.
        number, login = user.get("id"), user.get("login")
        if type(number) is not int or number <= 0 or not isinstance(login, str):
            return Refused("what the provider said is not valid")
        if not await self._is_allowed(login, token):
            return Refused("this account is not on the list of this server")
        name = user.get("name")
        return Person(
            issuer=self._web,
            subject=str(number),
            name=name if isinstance(name, str) and name.strip() else login,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _is_allowed(self, login: str, token: str) -> bool:
        subjects = {name.lower() for name in self._config.allowed_subjects}
        organisations = {name.lower() for name in self._config.allowed_organisations}
        if not subjects and not organisations:
            return True
        if login.lower() in subjects:
            return True
        if not organisations:
            return False
        status, found = await self._http.get(self._api + _ORGANISATIONS, token)
        if status != _OK or not isinstance(found, list):
            return False
        return any(_login(entry) in organisations for entry in found)


def _login(entry: Any) -> str:
    login = entry.get("login") if isinstance(entry, dict) else None
    return login.lower() if isinstance(login, str) else ""


def _is_plain(token: str) -> bool:
    """Tell whether a token may go into a header."""
    return token.isascii() and token.isprintable() and " " not in token
