"""The words of recent spoken answers: clients of chat completions send only their ids back."""

from __future__ import annotations

import time
from collections import OrderedDict

KEPT_SECONDS = 3600
"""How long the words of a spoken answer can be pointed at by its id."""

_MAX_KEPT = 1000


class SpokenAnswers:
    """The words of recent spoken answers, by id; clients send only the id back."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def keep(self, id: str, words: str) -> int:
        """Keep ``words``; gives until when, in seconds since 1970."""
        until = int(time.time()) + KEPT_SECONDS
        self._kept[id] = (until, words)
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return until

    def recall(self, id: str) -> str | None:
        """The words; None when they are not known any more."""
        until, words = self._kept.get(id, (0, ""))
        return words if until > time.time() else None
