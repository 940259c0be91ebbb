"""What says how data channels go: options, variables, and what they refuse."""

import click
import pytest
from click.testing import CliRunner

from sleap_rtc_plugin.cli.options import transport_options
from sleap_rtc_plugin.transport.transport_options import (
    CONGESTION_VARIABLE,
    ENGINE_VARIABLE,
    RATE_VARIABLE,
    RELAY_ONLY_VARIABLE,
    TransportOptions,
)


def chosen(*words: str, **environment: str) -> TransportOptions:
    """Return what a command is given."""
    given: list[TransportOptions] = []

    @click.command()
    @transport_options
    def command(transport: TransportOptions) -> None:
        given.append(transport)

    result = CliRunner().invoke(command, list(words), env=environment)
    assert result.exit_code == 0, result.output
    return given[0]


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *(ENGINE_VARIABLE, CONGESTION_VARIABLE, RATE_VARIABLE),
        RELAY_ONLY_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)


def test_by_default_channels_are_fast_and_share() -> None:
    assert chosen() == TransportOptions("fast", "loss", None)


def test_options_say_otherwise() -> None:
    words = ("--congestion", "rate", "--max-mbit", "80", "--data-channels", "stock")
    assert chosen(*words) == TransportOptions("stock", "rate", 10_000_000)


def test_variables_stand_in_for_options_and_yield_to_them() -> None:
    environment = {
        CONGESTION_VARIABLE: "rate",
        RATE_VARIABLE: "8",
        ENGINE_VARIABLE: "stock",
    }
    assert chosen(**environment) == TransportOptions("stock", "rate", 1_000_000)
    words = ("--congestion", "loss", "--max-mbit", "16", "--data-channels", "fast")
    assert chosen(*words, **environment) == TransportOptions("fast", "loss", 2_000_000)


def test_no_address_is_told_where_that_is_wanted() -> None:
    assert not chosen().relay_only
    assert chosen("--relay-only").relay_only
    assert chosen(**{RELAY_ONLY_VARIABLE: "1"}).relay_only
    for word, is_wanted in [("1", True), ("yes", True), ("0", False), ("?", False)]:
        environment = {RELAY_ONLY_VARIABLE: word}
        assert TransportOptions.from_environment(environment).relay_only is is_wanted


@pytest.mark.parametrize(
    "words",
    [
        ("--congestion", "none"),
        ("--max-mbit", "0"),
        ("--max-mbit", "-1"),
        ("--max-mbit", "0.000001"),
        ("--max-mbit", "inf"),
        ("--max-mbit", "nan"),
        ("--data-channels", "quic"),
    ],
    ids=" ".join,
)
def test_what_is_no_choice_is_refused(words: tuple[str, str]) -> None:
    @click.command()
    @transport_options
    def command(transport: TransportOptions) -> None:
        """Do nothing."""

    result = CliRunner().invoke(command, list(words))
    assert result.exit_code == 2
    assert words[0] in result.output
