import pytest

from sleap_rtc_plugin.protocol.errors import RateLimited, TooMany
from sleap_rtc_signaling import gate as gate_module
from sleap_rtc_signaling.gate import Gate
from sleap_rtc_signaling.limits import Rate


def test_an_address_has_so_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MAX_SOCKETS_PER_ADDRESS", 2)
    gate = Gate()
    assert gate.enter("a", 0.0) is None
    assert gate.enter("a", 0.0) is None
    assert isinstance(gate.enter("a", 0.0), TooMany)
    assert gate.enter("b", 0.0) is None
    gate.leave("a")
    assert gate.enter("a", 0.0) is None


def test_the_server_has_so_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MAX_SOCKETS", 2)
    gate = Gate()
    assert gate.enter("a", 0.0) is gate.enter("b", 0.0) is None
    assert isinstance(gate.enter("c", 0.0), TooMany)
    gate.leave("b")
    assert gate.enter("c", 0.0) is None


def test_coming_too_often_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "CONNECT_RATE", Rate(1, 0.1))
    monkeypatch.setattr(gate_module, "MAX_SOCKETS", 2)
    gate = Gate()
    assert gate.enter("a", 0.0) is None
    refusal = gate.enter("a", 0.0)
    assert isinstance(refusal, RateLimited)
    assert refusal.retry_after_s == "10.0"
    assert gate.enter("a", 10.0) is None


def test_the_administrator_may_allow_more_or_fewer() -> None:
    gate = Gate(max_sockets=2, max_sockets_per_address=1, connects_per_s=0.05)
    assert gate.enter("a", 0.0) is None
    assert isinstance(gate.enter("a", 0.0), TooMany)
    gate.leave("a")
    refusal = gate.enter("a", 0.0)
    assert isinstance(refusal, RateLimited)
    assert refusal.retry_after_s == "20.0"
    assert gate.enter("b", 0.0) is gate.enter("c", 0.0) is None
    assert isinstance(gate.enter("d", 0.0), TooMany)
