"""The one kind of error that is the user's to mend; the command line prints no traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One line that names the field or file and says how to mend it."""


class AnotherRun(UserError):
    """A folder holds a run of other choices. found: what it holds, without the mend."""

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(f"{found}; {mend}")
        self.found = found


class FirstError(UserError):
    """Of several processes' errors the first, the one to say: the others follow from it."""


class NotFinite(UserError):
    """What was computed holds nan or infinity, so that it is no image."""


class LostProcess(UserError):
    """Another process of the run has ended, so that this one cannot go on."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'X'?"` for the closest of the known words, or `""` where none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_unicode(text: str, where: str) -> None:
    """Raises UserError where bytes that are not UTF-8 came in, of which Python makes surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = where.encode("utf-8", "backslashreplace").decode()
        raise UserError(
            f"{shown}: not UTF-8; type it in a UTF-8 terminal, or rename what has that name"
        ) from None
