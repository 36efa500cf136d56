"""What is to be done now and then, by whoever comes by."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from retrieval.errors import CiteqaError

logger = logging.getLogger(__name__)

_EVERY_S = 3600.0


class Housekeeping:
    """Does a piece of work at most once an hour, and the first time at once."""

    def __init__(self, work: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        """`work` may be refused: that is logged, and tried again when it is due next."""
        self._work = work
        self._clock = clock
        self._lock = threading.Lock()
        self._due_at = clock()

    def when_due(self) -> None:
        """Do it, if it is due."""
        with self._lock:
            now = self._clock()
            if now < self._due_at:
                return
            self._due_at = now + _EVERY_S
        try:
            self._work()
        except CiteqaError as error:
            logger.warning("What has expired is not deleted yet: %s", error)
