"""Where the pictures of a run are from, for whoever must answer for them; in every checkpoint."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flowbrush import config_io
from flowbrush.data.licences import OTHERS
from flowbrush.data.mixture import Mixture, MixtureConfig
from flowbrush.data.source import Origin, Source, Traced

if TYPE_CHECKING:
    from flowbrush.data import SourceConfig

MOST_CAUSES = 100  # that are told apart


def provenance(config: "SourceConfig", source: Source) -> dict[str, Any]:
    """What a source was made of, as plain values; of a mixture, what each part was.

    Costs a look at the list of files, and at a million licences in a table; no picture is read.
    """
    if isinstance(config, MixtureConfig) and isinstance(source, Mixture):
        parts = zip(config.parts, source.parts, strict=True)
        told = [{"share": part.share} | provenance(part.source, built) for part, built in parts]
        return {"examples": len(source), "parts": told}
    said = config_io.to_json(config)
    alone = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    origin = source.origin() if isinstance(source, Traced) else Origin(alone)
    return {
        "source": said,
        "examples": len(source),
        "left_out": dict(origin.left_out),
        "licences": commonest(origin.licences),
        "licences_of": origin.licences_of,
        "attribution": source.attribution,
        "sha256": origin.sha256,
        "made_of": dict(origin.made_of),
        "names_sha256": origin.names_sha256,
        "captions_sha256": origin.captions_sha256,
        "stamps_sha256": origin.stamps_sha256,
    }


def commonest(counts: Mapping[str, int] | Iterable[str]) -> dict[str, int]:
    """The most common ones, and how many are not among them."""
    counted = Counter(counts)
    rest = counted.total()
    found = dict(counted.most_common(MOST_CAUSES))
    rest -= sum(found.values())
    return found | ({OTHERS: rest + found.get(OTHERS, 0)} if rest else {})
