"""What the doctor says of one thing that it looked at."""

from typing import Literal

import msgspec

Level = Literal["ok", "note", "wrong"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at; `advice` says what to do."""

    name: str
    level: Level
    message: str
    advice: str = ""
