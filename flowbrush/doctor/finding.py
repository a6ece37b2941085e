"""One line of what was looked at."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "look at", "wrong"]


@dataclass(frozen=True)
class Finding:
    """wrong: training would fail, or learn what nobody means. mend: what to do, empty where ok."""

    state: State
    what: str
    mend: str = ""

    def line(self) -> str:
        return f"{self.state:7}  {self.what}{f'; {self.mend}' if self.mend else ''}"


def judged(good: bool, what: str, mend: str, otherwise: State = "look at") -> Finding:
    """ok where it is good; else with its mend."""
    return Finding("ok", what) if good else Finding(otherwise, what, mend)
