"""What painted pictures are measured by: what their source can check, and features of pictures."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flowbrush.data.shapes_world import Scene
from flowbrush.errors import UserError
from flowbrush.evaluate import metrics, oracle
from flowbrush.evaluate.asked import Asked
from flowbrush.evaluate.composition import catalogue, composition
from flowbrush.evaluate.efficientnet import EfficientNet
from flowbrush.evaluate.features import FeaturesConfig, PictureFeatures
from flowbrush.evaluate.gaussian import Gaussian, finite
from flowbrush.evaluate.inception import Inception
from flowbrush.evaluate.intervals import Measured, of_mean, of_share
from flowbrush.evaluate.probe import emoji_probe
from flowbrush.evaluate.reference import read_reference
from flowbrush.evaluate.right_first import ground_errors, is_right_first
from flowbrush.evaluate.vision_transformers import CLIPFeaturesConfig, DINOv2Features
from flowbrush.processes import choose_device
from flowbrush.text import TextEncoder

Parts = Iterable[UInt8[Tensor, "_ 3 H W"]]  # read more than once

MOST_COMPARED = 2_000  # real pictures among which the nearest is looked for
LANGUAGES = {
    "en": "English",
    "ja": "Japanese",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "zh": "Chinese",
    "ko": "Korean",
}


def degenerate(painted: Parts) -> str:
    """What shows that a model has collapsed, whatever the figures are: images of one color, and
    images that are the same as others. Empty where there are none."""
    flat, count, distinct = 0, 0, set[bytes]()
    for image in (image for part in painted for image in part):
        flat += bool((image == image[:, :1, :1]).all())
        count += 1
        distinct.add(sha256(image.contiguous().numpy().tobytes()).digest())
    faults = []
    if flat:
        faults.append(f"{flat:,} of {count:,} painted images are of one color")
    if len(distinct) < count:
        faults.append(f"only {len(distinct):,} of {count:,} painted images are distinct")
    return "; ".join(faults)


def by_source(what: Asked, painted: Parts) -> list[Measured]:
    """What the source itself can check: the drawn world reads every picture back, pairs of concept
    and attribute are told from all others; else the nearest real picture may be the asked one."""
    note = degenerate(painted)
    return [replace(one, note=note) for one in _by_source(what, painted)]


def _by_source(what: Asked, painted: Parts) -> list[Measured]:
    if all(isinstance(truth, Scene) for truth in what.truths):
        return _read_back(what, painted)
    if among := catalogue(what.source):
        nearest = [pair for part in painted for pair in among.nearest(part)]
        found = [
            composition(what.truths, nearest[what.of(kind)], among, _name(kind))
            for kind in what.kinds
        ]
        return [one for of_kind in found for one in of_kind]
    return _right_first(what, painted) if len(what) <= MOST_COMPARED else []


def _read_back(what: Asked, painted: Parts) -> list[Measured]:
    seen = [oracle.read(picture) for part in painted for picture in part]
    by = "read back from the drawn world"
    return [
        Measured(
            f"{name}, {_name(kind)}", one.share, *one.interval, one.asked, by, "higher", "none"
        )
        for kind in what.kinds
        for name, one in oracle.tally(what.truths, seen[what.of(kind)]).items()
    ]


def _right_first(what: Asked, painted: Parts) -> list[Measured]:
    real = torch.cat([*what.real()])
    right, errors = [], []
    for number, one in enumerate(picture for part in painted for picture in part):
        row = number % len(what)
        right.append(is_right_first(one[None], real, row))
        errors.append(ground_errors(one[None], real[row : row + 1]))
    found = []
    for kind in what.kinds:
        groups = what.groups[what.of(kind)]
        share = of_share(torch.cat(right[what.of(kind)]), groups)
        by = f"the nearest of {len(what):,} real pictures, in pixels, is the asked one"
        name = f"right first, {_name(kind)}"
        found.append(Measured(name, *share, len(what), by, "higher", "none"))
        ground = torch.cat(errors[what.of(kind)])
        groups = groups[ground.isfinite()]
        if len(ground := ground[ground.isfinite()]):
            by = "of 255, where the real picture is white"
            name = f"white ground error, {_name(kind)}"
            found.append(Measured(name, *of_mean(ground, groups), len(ground), by, "lower", "none"))
    return found


def _name(kind: str) -> str:
    return LANGUAGES.get(kind, kind)


@dataclass(frozen=True)
class Comparison:
    """Features, and what painted pictures are compared with by them."""

    features: PictureFeatures
    text: TextEncoder | None  # of captions, where the features have a like
    real: Float[Tensor, "m d"] | None  # None = of a reference that keeps no vectors
    known: Float[Tensor, "m d"] | Gaussian  # what FID compares with
    note: str = ""  # of the reference


def comparison(
    config: FeaturesConfig, reference: Path | None, what: Asked, device: torch.device
) -> Comparison:
    """With a reference, or else the examples' own pictures, whose features are made here, once.

    Raises UserError where the model or the reference cannot be had.
    """
    features = config.build(device)
    text = config.build_text(device) if isinstance(config, CLIPFeaturesConfig) else None
    if reference is None:
        own = torch.cat([features(part) for part in what.real()])
        return Comparison(features, text, own, own)
    read = read_reference(reference, features)
    if read.vectors is None and not isinstance(features, Inception | DINOv2Features):
        raise UserError(
            f"{reference}: it keeps no vectors, and {features.name} gives no figure without them; "
            "make a reference of at most 50,000 images, or leave --reference out"
        )
    own = what.source[what.indices[0]].picture.shape[0]
    told = f"is of {read.size} px" if read.size else "does not say of what size its images are"
    note = "" if read.size == own else f"the reference {told}, the run is of {own} px"
    known = read.gaussian if read.vectors is None else read.vectors
    return Comparison(features, text, read.vectors, known, note)


def by_features(what: Asked, painted: Parts, by: Comparison, cache: Path) -> list[Measured]:
    """The metrics that are usual with these features. cache: a folder for what is fitted once."""
    features, real, found = by.features, by.real, list[Measured]()
    own = torch.cat([features(part) for part in painted])
    finite(own)
    if isinstance(features, Inception | DINOv2Features):
        name = "FID" if isinstance(features, Inception) else "FD-DINOv2"
        found.append(metrics.fid(own, by.known, features.name, name, groups=what.groups))
    if real is not None and by.text is None:
        found.append(metrics.kid(own, real, features.name, groups=what.groups))
    if real is not None and isinstance(features, Inception | DINOv2Features):
        found.append(metrics.precision(own, real, features.name, groups=what.groups))
        found.append(metrics.recall(own, real, features.name, groups=what.groups))
    if isinstance(features, Inception):
        classes = features.logits(own).double().softmax(dim=1)
        found.append(metrics.inception_score(classes, features.name, groups=what.groups))
    if real is not None and by.text:
        found.append(metrics.cmmd_unbiased(own, real, features.name, groups=what.groups))
        found.append(metrics.cmmd(own, real, features.name, groups=what.groups))
    if by.text:
        texts = by.text([*what.captions]).pooled
        assert texts is not None
        found.append(metrics.clip_score(own, texts, features.name, what.groups))
    if isinstance(features, EfficientNet):
        probe = emoji_probe(cache, choose_device(), print)
        each = probe.score_of(own, what.captions)
        found.append(
            Measured(
                "probe score", *of_mean(each, what.groups), len(each), probe.worth, "higher", "none"
            )
        )
    note = "; ".join(filter(None, (degenerate(painted), by.note)))
    return [replace(one, note=note) for one in found]
