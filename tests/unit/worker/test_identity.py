"""The worker is the same peer after every restart."""

from pathlib import Path

import pytest

from sleap_rtc_worker.identity import load_or_make_identity


def test_the_identity_is_kept_and_private(tmp_path: Path) -> None:
    made = load_or_make_identity(tmp_path, "GPU box")
    assert made.peer_id.startswith("worker-gpu-box-")
    assert load_or_make_identity(tmp_path, "another name") == made
    assert made.resume_key not in repr(made)
    assert (tmp_path / "identity.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("bad", ["", "{}", '{"peer_id":"A B","resume_key":"x"}'])
def test_a_spoiled_identity_is_made_anew(tmp_path: Path, bad: str) -> None:
    (tmp_path / "identity.json").write_text(bad)
    made = load_or_make_identity(tmp_path, "w")
    assert load_or_make_identity(tmp_path, "w") == made
