"""Finds the inference options of sleap-nn among the words of a command line.

Pure: words in, words out. `sleap-remote predict` has options of its own; every other
word that sleap-nn's table knows, in both spellings, is taken out and read by
`protocol.inference_options`, so that a line of SLEAP's own can be pasted.
"""

from collections.abc import Callable, Iterator, Sequence

from sleap_rtc_plugin.protocol.inference_options import (
    OPTION_GROUPS,
    Choice,
    Flag,
    Integer,
    Kind,
    Number,
    Text,
    option_named,
)

__all__ = ["option_rows", "split_words"]


def split_words(
    words: Sequence[str], takes_value: Callable[[str], bool | None]
) -> tuple[list[str], list[str]]:
    """Take the words for sleap-nn out of a command line.

    Args:
        words: behind the command's name.
        takes_value: tells of a word whether an option of the command's own takes a
            value; None for a word that is none of its options.

    Returns:
        The words for the command, and those for sleap-nn.
    """
    own: list[str] = []
    inference: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            own += [word, *rest]
            break
        spelled, equals, _ = word.partition("=")
        has_value, target = takes_value(spelled), own
        value_follows = bool(has_value) and not equals
        if has_value is None and (known := option_named(word)) is not None:
            value_follows, target = known.value_follows, inference
        target.append(word)
        if value_follows and rest:
            target.append(rest.pop(0))
    return own, inference


def option_rows() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield every group of options for `--help`: its title, and a row an option."""
    for title, options in OPTION_GROUPS.items():
        yield title, [(f"--{name}", _words(kind)) for name, kind in options.items()]


def _words(kind: Kind) -> str:
    match kind:
        case Flag():
            return "A switch."
        case Integer(low, high):
            return _between("A whole number", low, high)
        case Number(low, high):
            return _between("A number", low, high)
        case Choice(words):
            return f"One of {', '.join(words)}."
        case Text(what=what):
            return f"{what[:1].upper()}{what[1:]}."
    return ""


def _between(what: str, low: float, high: float) -> str:
    """Say the bounds that mean something; others only keep numbers small."""
    if abs(high) < _HUGE:
        return f"{what} from {low:g} to {high:g}."
    return f"{what} from {low:g} on." if abs(low) < _HUGE else f"{what}."


_HUGE = 10**9
