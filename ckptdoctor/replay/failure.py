"""How a stage of the child says that it cannot go on."""

from __future__ import annotations

from ckptdoctor.model import ReplayStatus


class CannotReplay(Exception):  # noqa: N818 - reads as the sentence it carries
    """One sentence with the remedy; becomes the reason of a replay that was not run, or failed.

    Attributes:
        status: NOT_RUN where something is missing, FAILED where something that should work does not.
    """

    def __init__(self, reason: str, status: ReplayStatus = ReplayStatus.NOT_RUN) -> None:
        super().__init__(reason)
        self.status = status


class UsageError(Exception):
    """The request cannot be carried out as put; becomes a `ReplayError` of the parent."""


def brief(error: BaseException, limit: int = 300) -> str:
    """An exception in one line, without TensorFlow's op dumps and Keras' argument lists."""
    text = str(error).strip()
    if "Graph execution error" in text:  # the message itself is the last line before the node's name
        text = text.split("\n\t [[", 1)[0].strip().rpartition("\n")[2]
    for marker in ("\n\nArguments received by", "\nArguments received by", "[Op:", "\nStack trace", "\n\t [["):
        text = text.split(marker, 1)[0]
    text = " ".join(text.split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
