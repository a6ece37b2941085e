"""Places of published models: a folder, or a name on Hugging Face's hub.

A name on the hub may go on with a folder in it: `PixArt-alpha/PixArt-Sigma-XL-2-1024-MS/tokenizer`.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowbrush.errors import UserError


def located(place: str, files: tuple[str, ...], what: str, field: str) -> tuple[str, str]:
    """A folder and "", or a name on the hub and the folder inside it.

    files: patterns, of which a folder must have one. what: they, in words. field: of the config.
    Raises UserError where the folder is missing or has none of them.
    """
    folder = Path(place).expanduser()
    if place and folder.is_dir():
        if not any(any(folder.glob(name)) for name in files):
            held = "; it has .bin, which may hold code" if any(folder.glob("*.bin")) else ""
            raise UserError(f"{field}: the folder {folder} has no {what}{held}; give one that has")
        return str(folder), ""
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", place):
        place = place or "an empty name"
        raise UserError(f"{field}: {place} is no folder; give one, or a hub's name")
    owner, *rest = place.split("/")
    if owner == "runs":
        raise UserError(f"{field}: {place} is no folder; train that run first, or give another")
    return "/".join([owner, *rest[:1]]), "/".join(rest[1:])


@contextmanager
def reading(place: str, field: str) -> Iterator[None]:
    """One line for whatever goes wrong. While the hub sends something, its bars are shown."""
    with quiet(bars=not Path(place).expanduser().is_dir()):
        try:
            yield
        except Exception as error:  # of any kind: a broken file's is up to its reader
            raise UserError(f"{field}: {place} {reason(error)}") from None


@contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Without the remarks of transformers and of the hub, and without bars of progress."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    before, before_hub = logging.get_verbosity(), hub.get_verbosity()
    logging.set_verbosity_error()
    hub.set_verbosity_error()
    if hidden := logging.is_progress_bar_enabled() and not bars:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="huggingface_hub")
            yield
    finally:
        logging.set_verbosity(before)
        hub.set_verbosity(before_hub)
        if hidden:
            logging.enable_progress_bar()


def reason(error: BaseException) -> str:
    """Why a model could not be read, and the mend, as the end of a sentence."""
    from huggingface_hub import errors

    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, errors.GatedRepoError):
            return "is closed: accept its terms on huggingface.co, then run `hf auth login`"
        if isinstance(cause, errors.RepositoryNotFoundError):
            return "is no folder here and no name on huggingface.co (or a private one)"
        if isinstance(cause, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
            return (
                "is no folder here, and huggingface.co is out of reach; "
                "download it elsewhere and give its folder"
            )
    first, _, rest = str(error).strip().partition("\n")
    if first.endswith(":"):  # it goes on below "Error(s) in loading ...:"
        first = " ".join(f"{first} {rest}".split())[:200]
    if "use_safetensors" in first:  # advice not to insist on them
        return "has no weights as .safetensors; give a name or a folder that has"
    return f"cannot be read ({first or type(error).__name__})"
