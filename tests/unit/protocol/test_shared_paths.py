"""Which paths a peer may name on shared storage, and what proves a mount."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.shared_storage import (
    input_path,
    is_proof,
    output_path,
    path_error,
    prove,
)

JOB = "job-" + "0a" * 10
OTHER = "job-" + "0b" * 10


@pytest.mark.parametrize("path", [input_path(JOB), output_path(JOB)])
def test_a_job_s_own_folders_may_be_named(path: str) -> None:
    assert path_error(path, JOB) is None
    assert path_error(path, OTHER) is not None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc",
        "C:/jobs",
        "//server/jobs",
        "..",
        f"../jobs/{JOB}/input",
        f"jobs/{JOB}/../{OTHER}/input",
        f"jobs/{JOB}/..",
        f"jobs/{JOB}",
        f"jobs/{JOB}/",
        f"jobs/{JOB}x/input",
        f"jobs//{JOB}/input",
        f"Jobs/{JOB}/input",
        f"jobs/{JOB.upper()}/input",
        f"jobs\\{JOB}\\input",
        f"jobs/{JOB}/input\0",
        "probes/x",
    ],
)
def test_any_other_path_is_refused(path: str) -> None:
    assert path_error(path, JOB) is not None


@given(st.text())
def test_what_passes_stays_below_the_job(path: str) -> None:
    if path_error(path, JOB) is None:
        assert path.split("/")[:2] == ["jobs", JOB]
        assert ".." not in path.split("/")


def test_a_proof_needs_the_nonce_and_the_job() -> None:
    nonce = bytes(range(32))
    assert is_proof(prove(nonce, JOB), nonce, JOB)
    assert not is_proof(prove(nonce, JOB), nonce, OTHER)
    assert not is_proof(prove(bytes(32), JOB), nonce, JOB)
    assert not is_proof(None, nonce, JOB)
    assert nonce.hex() not in prove(nonce, JOB)
