"""Which sleap-nn can load which model."""

import pytest

from sleap_rtc_plugin.protocol.model_versions import can_load


@pytest.mark.parametrize(
    ("model", "worker", "loads"),
    [
        ("0.3.5", "0.3.5", True),
        ("0.3.9", "0.3.5", True),
        ("0.2.0", "0.3.0", True),
        ("0.4.0", "0.3.9", False),
        ("1.0", "0.9.1", False),
        ("0.10.0", "0.9.0", False),
        ("v0.3.5", "0.3", True),
        ("0.4.0a1", "0.3.5", False),
        ("0.3.0.dev1+gabc", "0.3.0", True),
        ("", "0.3.5", True),
        ("0.4.0", "", True),
        ("unknown", "0.3.5", True),
        ("9" * 500 + ".1", "0.3.5", True),
    ],
)
def test_the_same_or_an_older_minor_version_loads(
    model: str, worker: str, loads: bool
) -> None:
    assert can_load(model, worker) is loads
