"""What an administrator decides about signing in: the table `accounts`.

Read as a part of the whole configuration; called by what makes the accounts.
"""

import os
from typing import Annotated, Literal

from pydantic import Field

from sleap_rtc_plugin.protocol.limits import KIB, MAX_NAME_CHARS, MAX_URL_CHARS
from sleap_rtc_signaling.limits import (
    COGNITO_USER_LIFETIME_S,
    MAX_ALLOWED,
    MAX_PROVIDERS,
)
from sleap_rtc_signaling.sections import (
    ConfigError,
    HomePath,
    Seconds,
    Section,
    Switch,
    read_secret,
)

__all__ = ["AccountsConfig", "CognitoConfig", "OidcConfig", "with_client_secrets"]

AllowList = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)], ...],
    Field(max_length=MAX_ALLOWED),
]


class CognitoConfig(Section):
    """An AWS Cognito user pool whose users are the accounts.

    What may be done with it comes from the usual places of AWS (an instance's role,
    the environment), never from here.

    Attributes:
        region: such as `us-east-1`.
        user_pool_id: such as `us-east-1_AbCdEfGhI`.
        client_id: the app client's, one without a secret.
        endpoint_url: another place than AWS, for tests.
        user_lifetime_s: after how long an ephemeral user is deleted.
    """

    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    user_pool_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,55}$")]
    client_id: Annotated[str, Field(pattern=r"^[\w+]{1,128}$")]
    endpoint_url: Annotated[str, Field(max_length=MAX_URL_CHARS)] = ""
    user_lifetime_s: Seconds = COGNITO_USER_LIFETIME_S


class OidcConfig(Section):
    """A provider at which persons sign in by a code (RFC 8628).

    Where one of the `allowed_` lists is set, who is on none of them is refused;
    otherwise everybody who has an account at the provider is let in.

    Attributes:
        name: how the way is named in the routes, such as `github`.
        label: what a person calls it; the name where there is none.
        kind: `oidc` finds everything by the issuer; `github` is GitHub.
        issuer: the provider's address; for GitHub there is a default.
        api_url: of GitHub alone, where its API is.
        client_id: as the provider has registered this server.
        client_secret: the same; exactly one of the three, or none.
        client_secret_file: a file that holds it, and nothing else.
        client_secret_env: the environment variable that holds it.
        scope: what is asked for; there is a default for each kind.
        algorithms: which signatures of ID tokens are accepted.
        allowed_subjects: persons, as the provider's `sub`; on GitHub the login.
        allowed_domains: of confirmed e-mail addresses; not on GitHub.
        allowed_organisations: of GitHub.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
    client_id: Annotated[str, Field(min_length=1, max_length=256)]
    kind: Literal["oidc", "github"] = "oidc"
    issuer: Annotated[str, Field(max_length=MAX_URL_CHARS)] = ""
    api_url: Annotated[str, Field(max_length=MAX_URL_CHARS)] = ""
    label: Annotated[str, Field(max_length=MAX_NAME_CHARS)] = ""
    client_secret: Annotated[str, Field(max_length=KIB, repr=False, exclude=True)] = ""
    client_secret_file: HomePath | None = None
    client_secret_env: str | None = None
    scope: Annotated[str, Field(max_length=KIB)] = ""
    algorithms: Annotated[
        tuple[Literal["RS256", "ES256"], ...], Field(min_length=1, max_length=2)
    ] = ("RS256", "ES256")
    allowed_subjects: AllowList = ()
    allowed_domains: AllowList = ()
    allowed_organisations: AllowList = ()


class AccountsConfig(Section):
    """The ways to sign in; any mix of them.

    Attributes:
        anonymous: whether anybody gets an account without a name.
        cognito: who keeps the accounts without a name; this server, where nothing
            is set. With `anonymous` off, the pool's users are known and none is made.
        oidc: providers at which persons sign in.
    """

    anonymous: Switch = True
    cognito: CognitoConfig | None = None
    oidc: Annotated[tuple[OidcConfig, ...], Field(max_length=MAX_PROVIDERS)] = ()


def with_client_secrets(accounts: AccountsConfig, place: str) -> AccountsConfig:
    """Read the secrets of the providers' clients from where they are said to be.

    Args:
        accounts: the table.
        place: how the configuration is named in errors.

    Raises:
        ConfigError: one is missing, or is said to be in two places.
    """
    oidc = tuple(_with_client_secret(way, place) for way in accounts.oidc)
    return accounts.model_copy(update={"oidc": oidc})


def _with_client_secret(way: OidcConfig, place: str) -> OidcConfig:
    """Read the secret of a provider's client from where the file says that it is."""
    given = (way.client_secret, way.client_secret_file, way.client_secret_env)
    if sum(1 for value in given if value) > 1:
        raise ConfigError(
            f"{place} is not accepted: the provider {way.name} has more than one of "
            "client_secret, client_secret_file and client_secret_env."
        )
    secret = way.client_secret
    if way.client_secret_file is not None:
        secret = read_secret(way.client_secret_file)
    elif way.client_secret_env:
        secret = os.environ.get(way.client_secret_env, "").strip()
    if any(given) and not secret:
        raise ConfigError(f"The client secret of the provider {way.name} is empty.")
    return way.model_copy(
        update={
            "client_secret": secret,
            "client_secret_file": None,
            "client_secret_env": None,
        }
    )
