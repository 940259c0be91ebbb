"""PURE: what a provider answers in a device flow (RFC 8628 sections 3.2 and 3.5).

Everything is bounded and checked here before anybody shows or keeps it. Called by the
providers.
"""

from collections.abc import Mapping
from typing import Any, Final

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_signaling.accounts.device_flow import DeviceCode, Refused, Waiting
from sleap_rtc_signaling.accounts.provider_http import is_secure_url
from sleap_rtc_signaling.limits import (
    DEFAULT_FLOW_INTERVAL_S,
    MAX_DEVICE_CODE_CHARS,
    MAX_FLOW_INTERVAL_S,
    MAX_FLOW_LIFETIME_S,
)

__all__ = ["GRANT_TYPE", "read_device_code", "read_refusal"]

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_MAX_USER_CODE_CHARS: Final = 64
_REFUSALS: Final = {
    "access_denied": "it was refused at the provider",
    "expired_token": "it took too long",
}


def read_device_code(answer: Mapping[str, Any], nonce: str) -> DeviceCode | None:
    """Read what a provider has begun; None where it makes no sense."""
    device_code, user_code = answer.get("device_code"), answer.get("user_code")
    # Older drafts, and Google to this day, call the address `verification_url`.
    where = answer.get("verification_uri", answer.get("verification_url"))
    complete = answer.get("verification_uri_complete", "")
    lifetime_s = answer.get("expires_in")
    interval_s = answer.get("interval", DEFAULT_FLOW_INTERVAL_S)
    if (
        not isinstance(device_code, str)
        or not 0 < len(device_code) <= MAX_DEVICE_CODE_CHARS
        or not isinstance(user_code, str)
        or not 0 < len(user_code) <= _MAX_USER_CODE_CHARS
        or clean_text(user_code) != user_code
        or not is_secure_url(where)
        or not _is_positive(lifetime_s)
        or not _is_positive(interval_s)
    ):
        return None
    return DeviceCode(
        device_code=device_code,
        user_code=user_code,
        verification_uri=str(where),
        verification_uri_complete=complete if is_secure_url(complete) else "",
        lifetime_s=min(float(str(lifetime_s)), MAX_FLOW_LIFETIME_S),
        interval_s=min(float(interval_s), MAX_FLOW_INTERVAL_S),
        nonce=nonce,
    )


def read_refusal(answer: Mapping[str, Any]) -> Waiting | Refused | None:
    """Read why there is no token; None where the answer has no error."""
    error = answer.get("error")
    if error is None:
        return None
    if error == "authorization_pending":
        return Waiting()
    if error == "slow_down":
        return Waiting(slower=True)
    reason = _REFUSALS.get(error) if isinstance(error, str) else None
    return Refused(reason or "the provider did not accept it")


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
