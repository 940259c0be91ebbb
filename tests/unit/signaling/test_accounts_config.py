import os
from pathlib import Path

import pytest

from sleap_rtc_signaling.config import load, shown
from sleap_rtc_signaling.sections import ConfigError

SECRET = "secret-of-the-client"


def written(folder: Path, line: str) -> Path:
    path = folder / "signaling.toml"
    path.write_text(
        "[[accounts.oidc]]\n"
        'name = "lab"\nissuer = "https://sso.lab.example"\nclient_id = "sleap"\n'
        + line,
        encoding="utf-8",
    )
    return path


def test_a_secret_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "secret"
    place.write_text(f"{SECRET}\n", encoding="utf-8")
    monkeypatch.setitem(os.environ, "CLIENT_SECRET", SECRET)
    for line in (
        f'client_secret = "{SECRET}"',
        f'client_secret_file = "{place}"',
        'client_secret_env = "CLIENT_SECRET"',
    ):
        config = load(written(tmp_path, line))
        (way,) = config.accounts.oidc
        assert way.client_secret == SECRET
        assert SECRET not in repr(config) + repr(config.accounts) + repr(shown(config))
    (way,) = load(written(tmp_path, "")).accounts.oidc
    assert way.client_secret == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('client_secret_file = "/nowhere/secret"', "missing"),
        ('client_secret_env = "NOT_SET"', "is empty"),
        ('client_secret = "a"\nclient_secret_env = "B"', "more than one"),
        ('allowed_domain = ["a.example"]', "allowed_domains is meant"),
        ('algorithms = ["HS256"]', "algorithms"),
        ('algorithms = ["none"]', "algorithms"),
        ('name_ = "x"', "no such setting"),
    ],
)
def test_slips_are_told(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load(written(tmp_path, line))
    assert "oidc" in str(caught.value) or "secret" in str(caught.value)
