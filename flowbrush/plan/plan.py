"""What a recipe needs on given devices: all of it computed, from counts, rates and one share."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from flowbrush.data.source import Source
from flowbrush.errors import UserError, nearest
from flowbrush.experiment import ExperimentConfig
from flowbrush.plan.devices import DEVICES, named
from flowbrush.plan.flops import LEARNING, condition_of, forward_flops, skeleton
from flowbrush.plan.here import matmul_rate, memory_rate, step_seconds
from flowbrush.plan.host import memory_here
from flowbrush.plan.live import StepMemory, step_memory
from flowbrush.plan.memory import (
    CONTEXT,
    KERNELS,
    SPARE,
    WEIGHT,
    Memory,
    Part,
    Weights,
    between,
    largest,
    memory,
    picture_bytes,
    ways_of,
    weights_of,
)
from flowbrush.plan.surroundings import Frozen, surroundings
from flowbrush.processes import choose_device, choose_dtype
from flowbrush.shapes import Shapes

UTILISATION = 0.4  # of a device that is not here: well-tuned transformers reach 0.35 to 0.55
HERE = ("here", "cpu")
PATIENCE = 6.0  # seconds that one measured step may take


@dataclass(frozen=True)
class PlanConfig:
    """On what a recipe is to be trained."""

    device: str = "h200"
    """a100, h100, h200, b200, l4, l40s, rtx4090, mi300x; or here (what train would choose) and cpu,
    which are measured: products of matrices, and three steps of the network with random pictures"""
    count: int = 0
    """devices, or processes on a CPU; 0 = 8, of this machine 1"""
    node: int = 8
    """devices of one machine, among which hybrid sharding divides"""
    utilisation: float = 0.0
    """share of the peak rate that is reached; 0 = 0.4, of this machine what was measured"""
    price: float = 0.0
    """of a device's hour, in any currency; 0 = no money is said"""

    def __post_init__(self) -> None:
        if self.device not in (*DEVICES, *HERE):
            known = (*DEVICES, *HERE)
            raise UserError(
                f"--device {self.device}: not known ({', '.join(known)})"
                f"{nearest(self.device, known)}"
            )
        if min(self.count, self.price) < 0 or self.node < 1 or not 0 <= self.utilisation <= 1:
            raise UserError(
                "plan: count and price must be 0 or more, node 1 or more, utilisation in [0, 1]"
            )

    @property
    def devices(self) -> int:
        return self.count or (1 if self.device in HERE else 8)


class Rates(NamedTuple):
    """Of one device."""

    name: str
    memory: int | float  # bytes
    peak: float  # FLOP/s
    bandwidth: float  # bytes/s
    utilisation: float
    told: str  # where they come from


@dataclass(frozen=True)
class Plan:
    """All that is said of a recipe."""

    config: ExperimentConfig
    asked: PlanConfig
    weights: Weights
    frozen: tuple[Frozen, ...]
    forward: int  # FLOPs of a picture in the network
    dtype: torch.dtype
    memory: Memory
    rates: Rates
    most: int  # pictures that go through the network of one device together, at most
    remarks: tuple[str, ...]

    @property
    def pictures(self) -> int:
        """Of one device in one step."""
        return self.config.batch.size // self.asked.devices

    @property
    def encoding(self) -> int:
        """FLOPs of a picture and its caption in what learns nothing."""
        return sum(one.flops or 0 for one in self.frozen)

    @property
    def learning(self) -> int:
        """FLOPs of a picture, forward and backward, in the network."""
        return LEARNING * self.forward

    @property
    def computed(self) -> int:
        """FLOPs that are really computed of a picture; activations twice where recomputed."""
        again = self.forward if self.config.train.recompute else 0
        return self.learning + again + self.encoding

    @property
    def update_seconds(self) -> float:
        """Of clipping, AdamW and averages: as long as the memory takes to read and write them."""
        ways = ways_of(self.config.train.sharding, self.asked.devices, self.asked.node)
        averages = len(self.config.train.ema) + len(self.config.train.power_ema)
        # The norm reads gradients, clipping reads and writes them; AdamW reads four numbers and
        # writes three, an average reads two and writes one.
        numbers = 10 * self.weights.trained + 3 * averages * self.weights.all
        return WEIGHT * numbers / ways / self.rates.bandwidth

    @property
    def step_seconds(self) -> float:
        reached = self.rates.peak * self.rates.utilisation
        return self.pictures * self.computed / reached + self.update_seconds

    @property
    def pictures_per_second(self) -> float:
        return self.config.batch.size / self.step_seconds

    @property
    def days(self) -> float:
        return self.config.train.pictures / self.pictures_per_second / 86_400

    @property
    def accumulate(self) -> int | None:
        """The fewest parts in which the batch fits; None where not even one picture does."""
        ways = (a for a in range(1, self.pictures + 1) if self.config.batch.size % a == 0)
        return next((a for a in ways if -(-self.pictures // a) <= self.most), None)


def plan(config: ExperimentConfig, asked: PlanConfig, source: Source | None, base: int = 0) -> Plan:
    """source: None where it is not at hand. base: bytes of a process before it has a network.

    Raises UserError where the devices do not divide the batch, or a model's sizes are not known.
    """
    devices, size = asked.devices, config.batch.size
    if size % devices:
        raise UserError(
            f"--count {devices}: does not divide a batch of {size}; give another, or --batch.size"
        )
    pictures = size // devices
    around = surroundings(config, source)
    shapes, network = around.shapes, skeleton(config.backbone, around.shapes)
    weights, forward = weights_of(network), forward_flops(network, shapes)
    device = choose_device("auto" if asked.device == "here" else "cpu")
    cpu = asked.device in HERE and device.type == "cpu"
    dtype = choose_dtype(config.train.precision, device)
    if asked.device in DEVICES:
        dtype = torch.float32 if config.train.precision == "fp32" else torch.bfloat16

    ways = ways_of(config.train.sharding, devices, asked.node)
    part = -(-pictures // config.train.accumulate)
    given = condition_of(shapes.condition, 1, torch.device("cpu"))
    condition = [part.nbytes for part in vars(given).values() if part is not None]
    numbers = shapes.channels * shapes.height * shapes.width
    picture = picture_bytes(config, numbers, sum(condition))
    beside = [Part(one.name, one.size) for one in around.frozen if one.size]
    if cpu:
        beside += [Part("Python, its libraries, the data's lists", base), Part("kernels", KERNELS)]
    else:
        beside += [Part("CUDA's context, about", CONTEXT)]

    def followed(b: int) -> StepMemory:
        return step_memory(config, shapes, b, dtype, config.train.recompute, cuda=not cpu)

    def taken(b: int, step: StepMemory, accumulate: int) -> Memory:
        settings = replace(config, train=replace(config.train, accumulate=accumulate))
        return memory(settings, weights, step, picture, max(b, pictures), tuple(beside), ways, cpu)

    ends = (part, followed(part)), (2 * part, followed(2 * part))
    capacity = _memory_of(asked, device)

    def fits(b: int) -> bool:
        needed = taken(b, between(*ends, b), 1 if b >= pictures else 2)
        return needed.peak <= SPARE * capacity

    most = largest(fits)
    rates = _rates(config, asked, shapes, forward, dtype, device, min(part, max(1, most)))
    return Plan(
        config,
        asked,
        weights,
        around.frozen,
        forward,
        dtype,
        taken(part, ends[0][1], config.train.accumulate),
        rates._replace(memory=capacity),
        most,
        around.remarks,
    )


def _memory_of(asked: PlanConfig, device: torch.device) -> int | float:
    if asked.device in DEVICES:
        return DEVICES[asked.device].memory
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_here() / asked.devices


def _rates(
    config: ExperimentConfig,
    asked: PlanConfig,
    shapes: Shapes,
    forward: int,
    dtype: torch.dtype,
    device: torch.device,
    b: int,
) -> Rates:
    """b: pictures of a measured step, at most."""
    if asked.device in DEVICES:
        one = DEVICES[asked.device]
        share = asked.utilisation or UTILISATION
        told = one.source if asked.utilisation else f"{one.source}; the share is assumed"
        return Rates(one.name, one.memory, one.peak(dtype), one.bandwidth, share, told)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else "this machine's CPU"
    known = named(name) if cuda else None
    peak = known.peak(dtype) if known else matmul_rate(device, dtype)
    told = known.source if known else f"products measured here, {torch.get_num_threads()} threads"
    bandwidth, share = memory_rate(device), asked.utilisation
    if not share:
        taken = step_seconds(config, shapes, 1, dtype, device)
        if b > 1:
            b = max(2, min(b, int(PATIENCE / taken)))
            taken = step_seconds(config, shapes, b, dtype, device)
        again = forward if config.train.recompute else 0
        share = b * (LEARNING * forward + again) / (taken * peak)
        told += f"; the share of three steps of {b} pictures, measured"
    return Rates(name, 0.0, peak, bandwidth, share, told)


def readable_source(config: ExperimentConfig) -> Source | None:
    """The recipe's source, where it can be read here."""
    try:
        return config.source.build(config.size)
    except (UserError, OSError):
        return None
