"""What containers of the tests are made from."""

from __future__ import annotations

import os


def base_image() -> str:
    return os.environ.get("STORMDRILL_BASE_IMAGE", "stormdrill-base:bookworm")
