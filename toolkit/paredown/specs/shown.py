"""What a sample looks like to a person."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample as a person sees it: a text, a picture or a sound; its index alone where the task does not say.

    Attributes:
        index: Its place in the split.
        text: What is read.
        labels: What is right in words, of each counted unit, or one for the whole sample; empty where the data has no labels.
        places: Of a text that is continued at many places: how many of its characters come before each counted unit; else empty.
        media: Media type of `content`, such as ``image/png``; empty without.
        content: The picture or sound.
    """

    index: int
    text: str = ""
    labels: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    media: Literal["", "image/png", "audio/wav"] = ""
    content: bytes = b""

    @property
    def uri(self) -> str:
        """The content as an address that needs no network; empty without content."""
        return f"data:{self.media};base64,{base64.b64encode(self.content).decode()}" if self.content else ""
