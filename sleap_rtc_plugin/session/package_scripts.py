"""Reads the shell scripts of a package as text; nothing here ever runs one.

SLEAP writes one command a line: `sleap train ...`, `sleap predict ...`. A line that is
anything else makes the whole script count as unreadable, and `jobs.yaml` is used
instead. Pure; called by `package_steps`.
"""

import shlex
from collections.abc import Sequence
from typing import Final

__all__ = ["predict_commands", "train_commands"]

_PREDICT: Final = (
    ("sleap", "predict"),
    ("sleap", "track"),
    ("sleap-nn", "predict"),
    ("sleap-nn", "track"),
    ("sleap-nn-track",),
    ("sleap-track",),
)
_TRAIN: Final = (("sleap", "train"), ("sleap-nn", "train"), ("sleap-nn-train",))
# Words that a shell would act on. They are never acted on here: the line is unreadable.
_SHELL_WORDS: Final = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "<<"})


def predict_commands(text: str) -> list[list[str]] | None:
    """Return the arguments of each inference command, without the program's name.

    Returns:
        A list of words per command, or None where a line is not such a command.
    """
    return _commands(text, _PREDICT)


def train_commands(text: str) -> list[tuple[str, str]] | None:
    """Return configuration name and run name of each training command.

    Returns:
        A pair per command, the run name "" where none is given, or None where a line
        is not such a command.
    """
    commands = _commands(text, _TRAIN)
    if commands is None:
        return None
    pairs = [_train_pair(words) for words in commands]
    return None if any(not config for config, _ in pairs) else pairs


def _train_pair(words: Sequence[str]) -> tuple[str, str]:
    config = run_name = ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("--config-name", "-c"):
            config = following
        name, equals, value = word.partition("=")
        if equals and name.lstrip("+") == "trainer_config.run_name":
            run_name = value.strip("\"'")
    return config, run_name


def _commands(
    text: str, programs: tuple[tuple[str, ...], ...]
) -> list[list[str]] | None:
    commands: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=line.lstrip().startswith("#"))
        except ValueError:
            return None
        if not words:
            continue
        heads = [head for head in programs if tuple(words[: len(head)]) == head]
        if not heads or _SHELL_WORDS & set(words):
            return None
        commands.append(words[len(heads[0]) :])
    return commands or None
