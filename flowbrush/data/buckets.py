"""Pictures of several shapes: each goes to the nearest of a few, and a batch has one shape.

A bucket holds the examples of one shape. Its turns are whole batches, as many as its examples are
of all: which batch is of which shape depends on nothing but its number.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from tqdm import tqdm

from flowbrush.data.mixture import Mixture
from flowbrush.data.part import BLOCK, Part
from flowbrush.data.source import Example, Shaped, Source
from flowbrush.errors import UserError

Shape = tuple[int, int]  # height and width in pixels
MOST_SHAPES = 63  # each is a compilation, and tables of positions in memory


@dataclass(frozen=True, kw_only=True)
class BucketsConfig:
    """Shapes beside the square of the pictures' size; all have about as many pixels."""

    step: int = 0  # pixels of which every height and width is a multiple; 0 = the square alone
    most: float = 2.0  # longer side / shorter side

    def __post_init__(self) -> None:
        if self.step < 0 or not self.most >= 1:
            raise UserError(
                f"buckets: step {self.step} must be 0 or more, most {self.most} 1 or more"
            )

    def shapes(self, size: int) -> tuple[Shape, ...]:
        """From the tallest to the widest. Raises UserError where they cannot be, or are too many.

        Pixels differ from size * size by no more than half a step of the shorter side.
        """
        if not self.step:
            return ((size, size),)
        if size % self.step:
            raise UserError(f"buckets.step: {self.step} does not divide the size of {size} pixels")
        tall = list[Shape]()
        for height in range(size + self.step, size * size, self.step):
            width = round(size * size / height / self.step) * self.step
            if not width or height > self.most * width:
                break
            tall.append((height, width))
        if 2 * len(tall) + 1 > MOST_SHAPES:
            raise UserError(
                f"buckets.step: {self.step} makes {2 * len(tall) + 1} shapes, at most "
                f"{MOST_SHAPES}; take a longer one, or a smaller buckets.most"
            )
        return (*tall[::-1], (size, size), *((width, height) for height, width in tall))


@dataclass(frozen=True)
class Buckets:
    """A Source: the examples of its buckets, one bucket after the other.

    shapes, weights: of each bucket; its weight is its share of the batches of `batch` pictures.
    summary: what is in which, in one line.
    """

    together: Mixture
    shapes: tuple[Shape, ...]
    weights: tuple[Fraction, ...]
    batch: int
    summary: str

    def __len__(self) -> int:
        return len(self.together)

    def __getitem__(self, i: int) -> Example:
        return self.together[i]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.together.classes

    @property
    def attribution(self) -> str:
        return self.together.attribution

    def check(self, shape: Shape) -> None:
        """Raises UserError where a batch of this shape was not to be."""
        if shape not in self.shapes:
            raise UserError(f"source: pictures of {said(shape)} among {self.summary}")


@dataclass(frozen=True, eq=False)
class _Numbered:
    """Places that have one number; of all places a byte is kept."""

    number: int
    numbers: UInt8[np.ndarray, " n"]
    before: Int64[np.ndarray, " ends"]  # in the blocks before each one, and in all

    def until(self, block: int) -> int:
        return int(self.before[block])

    def inside(self, block: int) -> Int64[np.ndarray, " k"]:
        return np.flatnonzero(self.numbers[block * BLOCK : (block + 1) * BLOCK] == self.number)


def bucketed(source: Source, shapes: Sequence[Shape], batch: int) -> Buckets:
    """Each example in the bucket of the nearest shape; of unknown shape, in that of the square.

    Where fewer than a batch go to a shape, they go to the nearest that more go to. The parts of a
    mixture keep their shares in all. Raises UserError where a source has squares alone.
    """
    began = time.perf_counter()
    parts = list(_leaves(source, Fraction(1)))
    with tqdm(total=len(source), unit="pictures", desc="shapes", delay=5, leave=False) as bar:
        numbers = [_numbers(part, shapes, bar) for part, _ in parts]
    counts = [_counts(of, len(shapes)) for of in numbers]
    totals = sum((of.sum(axis=0) for of in counts), np.zeros(len(shapes), np.int64))
    into = _merged(totals, shapes, batch)
    for of in numbers:
        for number in np.flatnonzero(into != np.arange(len(into))):
            of[of == number] = into[number]
    buckets, used, weights, lines = list[Source](), list[Shape](), list[Fraction](), list[str]()
    for number in np.unique(into).tolist():
        shape, inside, shares = shapes[number], list[Source](), list[Fraction]()
        for (part, share), of, count in zip(parts, numbers, counts, strict=True):
            until = np.concatenate([[0], count[:, into == number].sum(axis=1).cumsum()])
            if until[-1]:
                inside.append(Part(_reshaped(part, shape), _Numbered(number, of, until)))
                shares.append(share * Fraction(int(until[-1]), len(part)))
        merged = int(totals[into == number].sum() - totals[number])
        more = f" of which {merged:,} of rarer shapes" if merged else ""
        lines.append(f"{said(shape)} ({sum(map(len, inside)):,}{more})")
        mixed = Mixture(tuple(inside), tuple(map(float, shares)))
        buckets.append(mixed if len(inside) > 1 else inside[0])
        used.append(shape)
        weights.append(sum(shares, Fraction(0)))
    together = Mixture(tuple(buckets), tuple(map(float, weights)))
    seconds = time.perf_counter() - began
    many = f"{len(used)} shape{'s' * (len(used) > 1)}"
    summary = f"{many} of pictures: {', '.join(lines)}; looked at in {seconds:.1f} s"
    return Buckets(together, tuple(used), tuple(weights), batch, summary)


def said(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1]}"


def nearest(aspects: Float32[np.ndarray, " m"], shapes: Sequence[Shape]) -> UInt8[np.ndarray, " m"]:
    """The number of the shape whose width / height is nearest, by their ratio; of NaN, of 1's."""
    known = np.where(np.isnan(aspects), np.float32(1), aspects)
    ratios = np.array([width / height for height, width in shapes])
    return np.searchsorted(np.sqrt(ratios[1:] * ratios[:-1]), known).astype(np.uint8)


def _leaves(source: Source, share: Fraction) -> Iterator[tuple[Source, Fraction]]:
    """The parts of a mixture of any depth, with their shares of all."""
    if not isinstance(source, Mixture):
        yield source, share
        return
    shares = [Fraction(str(one)) for one in source.shares]
    for part, one in zip(source.parts, shares, strict=True):
        yield from _leaves(part, share * one / sum(shares))


def _numbers(source: Source, shapes: Sequence[Shape], bar: tqdm) -> UInt8[np.ndarray, " n"]:
    """Of each example, which shape is nearest."""
    if isinstance(source, Part):
        whole, found = _numbers(source.source, shapes, bar), np.empty(len(source), np.uint8)
        for block in range(-(-len(whole) // BLOCK)):
            inside = whole[block * BLOCK : (block + 1) * BLOCK]
            places = source.places.inside(block)
            first = source.places.until(block)
            mine = inside[places[places < len(inside)]]
            found[first : first + len(mine)] = mine
        return found
    if not isinstance(source, Shaped):
        raise UserError(
            f"buckets.step: {type(source).__name__} has square pictures alone; leave it at 0"
        )
    found, end = np.empty(len(source), np.uint8), 0
    for aspects in source.aspects():
        found[end : end + len(aspects)] = nearest(aspects, shapes)
        end += len(aspects)
        bar.update(len(aspects))
    assert end == len(source)
    return found


def _counts(numbers: UInt8[np.ndarray, " n"], kinds: int) -> Int64[np.ndarray, "blocks k"]:
    """How often each number is in each block. In parts, since NumPy makes copies of eight bytes."""
    first = np.repeat(np.arange(BLOCK) * kinds, BLOCK)
    found = [np.zeros((0, kinds), np.int64)]
    for i in range(0, len(numbers), len(first)):
        part = numbers[i : i + len(first)]
        blocks = -(-len(part) // BLOCK)
        counts = np.bincount(first[: len(part)] + part, minlength=blocks * kinds)
        found.append(counts.reshape(blocks, kinds))
    return np.concatenate(found)


def _reshaped(source: Source, shape: Shape) -> Source:
    if isinstance(source, Part):
        return Part(_reshaped(source.source, shape), source.places)
    assert isinstance(source, Shaped)
    return source.reshaped(shape)


def _merged(
    counts: Int64[np.ndarray, " k"], shapes: Sequence[Shape], fewest: int
) -> UInt8[np.ndarray, " k"]:
    """The shape that each becomes, so that those that are left have `fewest` examples or more.

    The rarest goes first, to its nearest; the last one stays, however few it has.
    """
    into, left = np.arange(len(shapes), dtype=np.uint8), counts.copy()
    ratios = np.log([width / height for height, width in shapes])
    while (there := np.flatnonzero(left)).size > 1:
        rarest = there[left[there].argmin()]
        if left[rarest] >= fewest:
            break
        others = there[there != rarest]
        near = others[np.abs(ratios[others] - ratios[rarest]).argmin()]
        left[near] += left[rarest]
        left[rarest] = 0
        into[into == rarest] = near
    # Those that nothing goes to become one that is there, and so are no bucket.
    into[left[into] == 0] = there[0]
    return into
