"""Names: of files in one Unicode form, and of classes, from a file that the user has.

n01440764 <tab> tench <tab> テンチ      a class, its English name and, if there, its Japanese one
n01440764 tench, Tinca tinca            ImageNet's LOC_synset_mapping.txt: English, synonyms
"""

import unicodedata
from collections import Counter
from pathlib import Path

from flowbrush.errors import UserError

LANGUAGES = ("en", "ja")


def composed(name: str) -> str:
    """A name in Unicode's form NFC. macOS writes NFD: the same letters, as other characters."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    """A file's name as text that can be printed and stored: bytes that are no UTF-8 as \\xe9."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_names(path: Path) -> dict[str, dict[str, str]]:
    """The names by language ("en", "ja") of each class, in the order of the lines.

    ImageNet has two cranes: where synonyms do not tell two classes apart, the class's own key does.
    Raises UserError where lines differ in their columns, or two have one key or English name.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a file of names") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it again as UTF-8") from None
    rows = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    if not rows:
        raise UserError(f"{path}: empty; write KEY <tab> English <tab> 日本語, a class a line")
    tabbed = "\t" in rows[0][1]
    found: dict[str, dict[str, str]] = {}
    for i, line in rows:
        key, *names = (
            part.strip() for part in (line.split("\t") if tabbed else line.split(" ", 1))
        )
        if not key or not all(names) or not 1 <= len(names) <= len(LANGUAGES):
            raise UserError(f"{path}:{i}: {line!r} is not KEY <tab> English <tab> 日本語")
        if found and len(names) != len(next(iter(found.values()))):
            raise UserError(f"{path}:{i}: as many columns as in the first line belong here")
        key = composed(key)
        if key in found:
            raise UserError(f"{path}:{i}: {key} stands there twice; leave one out")
        found[key] = dict(zip(LANGUAGES, names, strict=False))
    if not tabbed:
        _shorten(found)
    english = Counter(names["en"] for names in found.values())
    name, times = english.most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: {times} classes are called {name!r}; tell them apart")
    return found


def _shorten(found: dict[str, dict[str, str]]) -> None:
    """The first synonym; all of them where it is another class's too; the key where these are."""
    whole = Counter(names["en"] for names in found.values())
    first = Counter(names["en"].partition(",")[0] for names in found.values())
    for key, names in found.items():
        if whole[names["en"]] > 1:
            names["en"] += f" ({key})"
        elif first[short := names["en"].partition(",")[0]] == 1:
            names["en"] = short
