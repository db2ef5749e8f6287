"""The log of a server: one JSON object a line, without pictures, names of files and addresses of clients."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import IO, Any


class JsonLog(logging.Handler):
    """Writes events, and what uvicorn logs, as lines of JSON.

    Args:
      out: where to; None for standard output. A stream that can't be written stops nothing.
    """

    def __init__(self, out: IO[str] | None = None):
        super().__init__(logging.INFO)
        self._out = out
        self._one_at_a_time = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        """Writes one event; fields that are None are left out."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {name: value for name, value in fields.items() if value is not None}
        line = json.dumps({"time": time, "event": event, **known})
        with self._one_at_a_time, contextlib.suppress(OSError, ValueError, AttributeError):
            print(line, file=self._out or sys.stdout, flush=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record of the library's logger."""
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self.write("server", level=record.levelname.lower(), message=record.getMessage().strip(), traceback=trace)
