"""Which of the worker's environment variables sleap-nn gets to see.

A training runs a client's configuration, so it inherits no credentials, and it
reports to nobody the client did not choose. Pure; called by the executor and the
step runner.
"""

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["STEP_MARK", "trainer_environment", "without_secrets"]

# Names the step's folder to all that the step runner starts, to find what it leaves.
STEP_MARK: Final = "SLEAP_REMOTE_STEP"

_SECRET: Final = re.compile(
    r"SLEAP_SESSION|SLEAP_RTC_.*|AWS_.*|AZURE_.*|GOOGLE_.*|GCP_.*|WANDB_.*"
    r"|HF_TOKEN.*|HUGGING_?FACE_.*|GH_.*|GITHUB_.*|KUBE.*|SSH_.*|VAULT_.*"
    r"|.*(SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_KEY"
    r"|PRIVATE_KEY).*",
    re.IGNORECASE,
)
_WANDB: Final = re.compile(r"WANDB_.*", re.IGNORECASE)
# Would run or load something before sleap-nn does.
_HOOKS: Final = frozenset({"PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT"})
_ALWAYS: Final = {
    # sleap-nn runs in a client's folder. Without this, `python -m` would import a
    # `torch.py` that lies there in place of torch.
    "PYTHONSAFEPATH": "1",
    # A `matplotlibrc` there must not choose the drawing module either.
    "MPLBACKEND": "Agg",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8:replace",
    "NO_COLOR": "1",
    "SLEAP_SKIP_QT_FIX": "1",
}
_NO_WANDB: Final = {"WANDB_MODE": "disabled", "WANDB_SILENT": "true"}
_NO_DOWNLOADS: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def without_secrets(
    inherited: Mapping[str, str], *, allow_wandb: bool = False
) -> dict[str, str]:
    """Return the variables that carry no credentials, by their names."""
    return {
        name: value
        for name, value in inherited.items()
        if name.upper() not in _HOOKS
        and (not _SECRET.fullmatch(name) or (allow_wandb and _WANDB.fullmatch(name)))
    }


def trainer_environment(
    inherited: Mapping[str, str],
    chosen: Mapping[str, str],
    *,
    allow_wandb: bool,
    allow_downloads: bool,
) -> dict[str, str]:
    """Return sleap-nn's whole environment.

    Args:
        inherited: the runner's own.
        chosen: what the worker sets, such as CUDA_VISIBLE_DEVICES.
        allow_wandb: let Weights & Biases find its variables.
        allow_downloads: let sleap-nn ask the Hugging Face hub.
    """
    environment = without_secrets(inherited, allow_wandb=allow_wandb)
    environment |= _ALWAYS
    if not allow_wandb:
        environment |= _NO_WANDB
    if not allow_downloads:
        environment |= _NO_DOWNLOADS
    return environment | dict(chosen)
