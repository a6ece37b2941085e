"""What painted pictures are compared with: statistics of real ones, made once, kept in a file.

The file is an `.npz` with `mu` and `sigma`, as pytorch-fid, ADM and JiT have it, so that theirs are
read too. Ours also says whose features and pictures they are, and holds the vectors of few.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flowbrush.data.source import Picture, Source, UnreadablePicture, stacked
from flowbrush.errors import UserError
from flowbrush.evaluate.features import PictureFeatures
from flowbrush.evaluate.gaussian import Gaussian, Moments
from flowbrush.evaluate.spread import spread
from flowbrush.whole_files import written_whole

KEPT = 50_000  # pictures whose vectors are kept; of Inception they are 410 MB
TOGETHER = 32
TOLD = 5_000  # pictures between two lines of progress


@dataclass(frozen=True)
class Reference:
    """Statistics of a source's pictures.

    features: their name; empty where other software made the file and does not say.
    vectors: for KID, precision and recall; None = not kept. size: of the images; 0 = not told.
    """

    gaussian: Gaussian
    features: str
    source: str = ""
    vectors: Float[Tensor, "n d"] | None = None
    size: int = 0

    def save(self, path: Path) -> None:
        """Written aside and renamed when whole."""
        arrays: dict[str, Any] = {
            "mu": self.gaussian.mean.numpy(),
            "sigma": self.gaussian.covariance.numpy(),
            "count": np.array(self.gaussian.count),
            "features": np.array(self.features),
            "source": np.array(self.source),
            "size": np.array(self.size),
        }
        if self.vectors is not None:
            arrays["vectors"] = self.vectors.numpy()
        with written_whole(path) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)


def make_reference(
    source: Source,
    features: PictureFeatures,
    limit: int,
    say: Callable[[str], None],
    described: str = "",
) -> Reference:
    """Of `limit` pictures, evenly over the source (0 = all); broken ones are counted and told.

    described: the source, in words. Raises UserError where it holds latents, or fewer than 2.
    """
    indices = spread(limit, len(source))
    count = len(indices)
    moments, vectors, broken, size = Moments(features.width), [], Broken(), 0
    for pictures in _batches(source, indices, broken):
        found, size = features(pictures), pictures.shape[-1]
        moments.add(found)
        vectors += [found] if count <= KEPT else []
        if moments.count // TOLD > (moments.count - len(found)) // TOLD:
            say(f"{moments.count:,} of {count:,} pictures")
    if broken.count:
        say(f"{broken.count:,} of {count:,} pictures cannot be read, the first is {broken.first}")
    kept = torch.cat(vectors) if vectors else None
    return Reference(moments.gaussian(), features.name, described, kept, size)


@dataclass
class Broken:
    """Pictures that could not be read."""

    count: int = 0
    first: str = ""


def _batches(
    source: Source, indices: Sequence[int], broken: Broken
) -> Iterator[UInt8[Tensor, "b 3 size size"]]:
    held: list[Picture] = []
    for i in indices:
        try:
            picture = source[i].picture
        except UnreadablePicture as error:
            broken.first = broken.first or str(error)
            broken.count += 1
            continue
        if picture.dtype != np.uint8:
            raise UserError("source: it holds latents; a reference is made of pictures themselves")
        held.append(picture)
        if len(held) == TOGETHER:
            yield stacked(held)
            held = []
    if held:
        yield stacked(held)


def read_reference(path: Path, features: PictureFeatures) -> Reference:
    """What `save` wrote, or other software. Of the latter, the count is the least it can be.

    Raises UserError where the file is missing or broken, or of other features than these.
    """
    arrays = _arrays(path)
    mean, covariance = (torch.from_numpy(arrays[key]).double() for key in ("mu", "sigma"))
    width = len(mean)
    if width != features.width:
        raise UserError(
            f"{path}: statistics of {width} numbers a picture; {features.name} gives "
            f"{features.width}. Make a reference with these features"
        )
    name = str(arrays.get("features", ""))
    if name not in ("", features.name):
        raise UserError(
            f"{path}: made with {name}, not {features.name}; choose those, or make another"
        )
    count = int(arrays["count"]) if "count" in arrays else _least_count(covariance)
    found = arrays.get("vectors")
    vectors = None if found is None else torch.from_numpy(found).float()
    gaussian = Gaussian(mean, covariance, count)
    size = int(arrays.get("size", 0))
    return Reference(gaussian, name, str(arrays.get("source", "")), vectors, size)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Only those that we know: ADM's files hold pictures besides."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; make it with flowbrush evaluate reference")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("a single array")
        with loaded as file:
            known = ("mu", "sigma", "count", "features", "source", "vectors", "size")
            arrays = {key: file[key] for key in known if key in file}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: no .npz of statistics ({reason})") from None
    for key in ("mu", "sigma"):
        if key not in arrays:
            raise UserError(f"{path}: it holds no {key}; statistics are the arrays mu and sigma")
    shape, square = arrays["mu"].shape, arrays["sigma"].shape
    if len(shape) != 1 or square != shape * 2:
        raise UserError(f"{path}: mu is {shape} and sigma {square}; they must be (d,) and (d, d)")
    for key in {"mu", "sigma", "vectors"} & arrays.keys():
        if arrays[key].dtype.kind not in "fiu" or not np.isfinite(arrays[key]).all():
            raise UserError(f"{path}: {key} holds what is no finite number; make the file anew")
    sigma = arrays["sigma"]
    if (sigma.diagonal() < 0).any() or not np.allclose(sigma, sigma.T, 1e-3, 1e-5):
        raise UserError(f"{path}: sigma is no covariance; make the file anew")
    return arrays


def _least_count(covariance: Float[Tensor, "d d"]) -> int:
    """n pictures give a covariance of a rank below n."""
    return int(torch.linalg.matrix_rank(covariance, hermitian=True)) + 1
