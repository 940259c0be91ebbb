"""Commands that run inside the tests' process leave its logging as it was."""

import logging
from collections.abc import Iterator

import pytest

LOGGERS = ("", "sleap_rtc_plugin", "sleap_rtc_worker", "sleap_rtc_signaling")


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
