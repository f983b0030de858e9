"""What an answer says beside its status: when to come back, and who served it."""

from __future__ import annotations

import math
import re
import time
from email.utils import parsedate_to_datetime

from stormdrill.load.locust.flights import RetryAfter

REGION_HEADER = "X-Region"
"""The header of an answer that says which region served it."""
REJECTED = (429, 503)
_SECONDS = re.compile(r"[0-9]{1,9}")
_UNREADABLE = RetryAfter(None)


def retry_after(value: object) -> RetryAfter | None:
    """RFC 9110, 10.2.3: seconds, or a date. None when the answer has no such header."""
    if value is None:
        return None
    text = value.strip() if isinstance(value, str) else ""
    if _SECONDS.fullmatch(text):
        return RetryAfter(float(text))
    try:
        wait_s = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return _UNREADABLE
    return RetryAfter(max(wait_s, 0.0)) if math.isfinite(wait_s) else _UNREADABLE
