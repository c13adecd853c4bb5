"""What an inspection can be told."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
