"""A log for a run that never ends: what repeats itself is logged once an hour."""

import logging
import math
import re
from threading import Lock
from typing import Any

from leadloop.core.boot_clock import read_boot_clock
from tasks.context import Logger

_REPEAT_S = 3600.0
# How long something took or lasted makes no news of what is logged.
_DURATION = re.compile(r"\b[\d,.]{1,12} s\b")
#: Messages that are remembered; far more different ones than that are no repeats.
_REMEMBERED = 1000


class OnceAnHour(logging.LoggerAdapter[Any]):
    """A log that leaves out a message that it had within the hour; thread-safe.

    Messages that differ in seconds alone are the same.
    """

    def __init__(self, log: Logger) -> None:
        super().__init__(log)
        self._lock = Lock()
        self._told_at: dict[str, float] = {}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message, unless it repeats one."""
        text = str(msg) % args if args else str(msg)
        if level < logging.WARNING or self._is_news(text):
            super().log(level, msg, *args, **kwargs)

    def _is_news(self, text: str) -> bool:
        now, text = read_boot_clock(), _DURATION.sub("s", text)
        with self._lock:
            if now < self._told_at.get(text, -math.inf) + _REPEAT_S:
                return False
            if len(self._told_at) >= _REMEMBERED:
                self._told_at.clear()
            self._told_at[text] = now
            return True
