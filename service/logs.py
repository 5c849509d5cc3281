"""What the service says on stderr: one JSON object a line, with the id of the request that it belongs to."""

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonEncoder, JsonFormatter

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_ENCODER = JsonEncoder()
_NAMES = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"}


def configure() -> None:
    """Sends whatever is logged in this process, warnings of Python and lines of uvicorn included, to stderr as JSON lines.

    The keys are time (ISO 8601, UTC, milliseconds), level, logger, message, and whatever was passed as `extra`; `exception` where
    there is one, `request_id` during a request. A uvicorn.Config made afterwards needs log_config=None, or it brings handlers of
    its own, and access_log=False: its access lines hold query strings.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)


class _Lines(JsonFormatter):
    def __init__(self) -> None:
        super().__init__(
            ["asctime", "levelname", "name", "message"],
            rename_fields=_NAMES,
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's message again, for terminals
            json_serializer=_encoded,
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        current = request_id.get()
        return log_data if current is None else {**log_data, "request_id": current}


def _encoded(fields: dict[str, Any], **_options: object) -> str:
    return _ENCODER.encode(fields)  # one encoder: json.dumps makes another for every line
