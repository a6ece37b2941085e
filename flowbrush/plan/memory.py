"""The memory of one device while it trains, part by part."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from flowbrush.blocks import blocks
from flowbrush.experiment import ExperimentConfig
from flowbrush.plan.live import StepMemory

WEIGHT = 4  # bytes: weights, gradients, averages and each of AdamW's two moments are fp32
CONTEXT = 600e6  # bytes that CUDA and its libraries take, about
# What glibc's heap keeps of pieces that come and go, as a share of them; and the code and tables of
# torch's kernels, which come into memory with the first step. Measured with `emoji` and `shapes`.
HEAP, KERNELS = 1.45, 90e6
SPARE = 0.95  # share of a device's memory that its allocator can fill, the rest being in pieces


Bytes = int | float


@dataclass(frozen=True)
class Weights:
    """Numbers in a network."""

    all: int
    trained: int
    largest_block: int
    outside_blocks: int


def weights_of(network: nn.Module) -> Weights:
    """Those of each block apart."""
    inside = [sum(w.numel() for w in block.parameters()) for block in blocks(network)]
    every = sum(w.numel() for w in network.parameters())
    trained = sum(w.numel() for w in network.parameters() if w.requires_grad)
    return Weights(every, trained, max(inside, default=0), every - sum(inside))


@dataclass(frozen=True)
class Part:
    """Memory of one kind."""

    name: str
    size: Bytes


@dataclass(frozen=True)
class Memory:
    """Of one device. snapshot: what a checkpoint is written from, in the host's memory."""

    parts: tuple[Part, ...]
    snapshot: Bytes

    @property
    def peak(self) -> Bytes:
        """Bytes, at the worst moment of a step while no checkpoint is written."""
        return sum(part.size for part in self.parts)


def memory(
    config: ExperimentConfig,
    weights: Weights,
    step: StepMemory,
    picture: Bytes,
    pictures: int,
    beside: tuple[Part, ...],
    ways: int = 1,
    cpu: bool = False,
) -> Memory:
    """What `pictures` of a batch on this device take.

    step: of the part of them that goes through the network together. picture: bytes of one in the
    batch, with its noise and condition. beside: models that learn nothing, and the like.
    ways: devices among which weights, gradients, moments and averages are divided.
    """
    settings = config.train
    averages = [f"average {decay}" for decay in settings.ema]
    averages += [f"average of length {length}" for length in settings.power_ema]
    own, gradients = WEIGHT * weights.all / ways, WEIGHT * weights.trained / ways
    states = [
        Part("weights", own),
        Part("AdamW's moments", 2 * gradients),
        *(Part(name, own) for name in averages),
    ]
    if ways > 1:  # two blocks, of which one comes while the other computes, and a gradient leaving
        whole = weights.outside_blocks + 3 * weights.largest_block
        states.append(Part("gathered blocks", WEIGHT * whole))
    # Alone and in one part, gradients come while activations go; else they are there from before.
    together = settings.accumulate > 1 or ways > 1
    most = gradients + step.kept + step.temporary if together else step.most
    moving = [
        Part("gradients", gradients),
        Part("activations", step.kept),
        Part("largest temporary", step.temporary),
    ]
    if not together:
        never = most - sum(part.size for part in moving)
        moving.append(Part("less: gradients that come when activations have gone", never))
    if cpu:
        moving.append(Part("pieces that the heap keeps", (HEAP - 1) * most))
    batch = Part("batch, noise, condition", picture * pictures)
    parts = (*states, *moving, batch, *beside)
    return Memory(parts, checkpoint_bytes(config, weights) / ways)


def checkpoint_bytes(config: ExperimentConfig, weights: Weights) -> int:
    """Of the weights, AdamW's moments and each average."""
    averages = len(config.train.ema) + len(config.train.power_ema)
    return WEIGHT * ((1 + averages) * weights.all + 2 * weights.trained)


def largest(fits: Callable[[int], bool], most: int = 1 << 20) -> int:
    """The largest number of pictures that fits, 0 where not even one does."""
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def between(one: tuple[int, StepMemory], other: tuple[int, StepMemory], b: int) -> StepMemory:
    """That of `b` pictures, on the straight line through those of two numbers."""
    (first, low), (second, high) = one, other

    def at(name: str) -> int:
        a, c = getattr(low, name), getattr(high, name)
        return max(0, round(a + (c - a) * (b - first) / (second - first)))

    most = max(at("most"), at("kept") + at("temporary"))
    return StepMemory(at("kept"), at("temporary"), most)


def picture_bytes(config: ExperimentConfig, numbers: int, condition: int) -> int:
    """Of one picture in a batch: its bytes, what the flow sees of it and its noise, and its text.

    numbers: in what the flow sees. condition: bytes.
    """
    return 3 * config.size**2 + 2 * 4 * numbers + condition


def ways_of(sharding: str, count: int, node: int) -> int:
    """Devices among which the weights are divided: all, those of a machine, or none."""
    return {"none": 1, "full": count, "hybrid": min(node, count)}[sharding]
