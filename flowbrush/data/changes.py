"""What has changed in a data set since a checkpoint was written, by the hashes that it holds.

No file is opened for it. Of a folder the names, the captions, and the sizes and times of the images
have a hash each, so that a renamed file is told from an edited one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowbrush.data.mixture import Mixture
from flowbrush.data.source import Growing, Source

WRITTEN_AGAIN = "images were written again (copied, edited at the same size, or exchanged)"


@dataclass(frozen=True)
class Change:
    """told: in words. moved: whether examples stand at other places of the list now, so that
    others are held out; None where the hashes do not tell."""

    told: str
    moved: bool | None


def changed(before: Mapping[str, Any], now: Mapping[str, Any], source: Source) -> Change | None:
    """Between two accounts of `provenance`, of which `now` is the source's; None for nothing.

    Hashes that an older version did not write are taken to be the same.
    """
    if "parts" not in before or not isinstance(source, Mixture):
        return _changed(before, now, source)
    parts = zip(before["parts"], now["parts"], source.parts, strict=True)
    found = [(i, change) for i, part in enumerate(parts, 1) if (change := changed(*part))]
    if not found:
        return None
    moves = {change.moved for _, change in found}
    told = "; ".join(f"part {i}: {change.told}" for i, change in found)
    return Change(told, True if True in moves else None if None in moves else False)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], source: Source) -> Change | None:
    def same(field: str) -> bool:
        return not before.get(field) or before[field] == now[field]

    more = now["examples"] - before["examples"]
    if more > 0:
        if not isinstance(source, Growing):
            return Change(f"{more:,} examples more: in another order", None)
        if source.first_sha256(before["examples"]) == before["sha256"]:
            return Change(f"{more:,} examples more, at its end: in another order", False)
        return Change(f"{more:,} examples more: in another order", True)
    if more < 0:
        return Change(f"{-more:,} examples fewer: in another order", True)
    captions = [] if same("captions_sha256") else ["captions were edited"]
    if same("sha256") and same("stamps_sha256"):
        return Change(captions[0], False) if captions else None
    if not before.get("stamps_sha256"):
        return Change("files were renamed, replaced or edited since", None)
    if same("stamps_sha256"):
        renamed = [] if same("names_sha256") else ["files were renamed, their order is as before"]
        told = [*renamed, *captions] or ["caption files were written again"]
        return Change(", ".join(told), False)
    if same("names_sha256"):
        images = WRITTEN_AGAIN if captions or same("sha256") else "images were replaced or edited"
        return Change(", ".join([images, *captions]), False)
    return Change("files were renamed or replaced: in another order", True)
