"""What becomes of every setting of a run's sampling in a folder of diffusers.

Each kind of folder has a table with one function for each field of SamplingConfig: the field's
value in the folder. So no field is forgotten, and the run's own sampler with those values is what
the folder is checked against. What differs from the run is said in the model card and on the
screen, with the difference that it makes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.flow.sampling import SamplingConfig, guided, sampling_denoiser, transport
from flowbrush.flow.times import grid
from flowbrush.text import TextEncoder

Setting = Callable[[SamplingConfig], Any]  # a field's value in the folder; raises UserError
Table = Mapping[str, Setting]
EVALUATIONS = {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4, "dpmsolver++": 1}  # in a step
STEPS_OF_DOPRI5 = 50  # of another solver in its place; its own follow from its tolerances


def kept(name: str) -> Setting:
    return lambda sampling: getattr(sampling, name)


def _euler(sampling: SamplingConfig) -> str:
    if sampling.method not in (*EVALUATIONS, "dopri5"):
        raise UserError(
            f"sampling.method: '{sampling.method}' stays here; set another in the run's "
            "config.json, such as euler"
        )
    return "euler"


def _as_many_evaluations(sampling: SamplingConfig) -> int:
    if sampling.method == "dopri5":
        return max(STEPS_OF_DOPRI5, sampling.steps)
    return sampling.steps * EVALUATIONS[sampling.method]


def _scale(sampling: SamplingConfig) -> float:
    if sampling.scale < 1:
        raise UserError(
            f"sampling.scale: {sampling.scale}; diffusers guides with more than 1, or not at all"
        )
    return sampling.scale


def _all_channels(sampling: SamplingConfig) -> None:
    if sampling.guided_channels is not None:
        raise UserError("sampling.guided_channels: set; diffusers guides all channels")


def _whole(sampling: SamplingConfig) -> tuple[float, float]:
    """The interval; without guidance it does nothing."""
    return sampling.interval if sampling.scale == 1 else (0.0, 1.0)


def _closed(sampling: SamplingConfig) -> bool:
    """An interval that begins with 0 begins there with and without its end."""
    return sampling.interval_open_low and _whole(sampling) == sampling.interval


# FlowMatchHeunDiscreteScheduler is none of them: it ends with an Euler step from a time of its own,
# and the pipelines of Flux and PixArt do not take it.
EULER: Table = {
    "method": _euler,
    "steps": _as_many_evaluations,
    "shift": kept("shift"),
    "last_gap": kept("last_gap"),
    "scale": _scale,
    "interval": _whole,
    "interval_open_low": _closed,
    "guided_channels": _all_channels,
    "clean_end": kept("clean_end"),  # of data prediction, which these pipelines have not
    "rtol": kept("rtol"),  # of dopri5, which is said with its method
    "atol": kept("atol"),
    "diffusion_form": kept("diffusion_form"),  # of methods that are refused
    "diffusion_norm": kept("diffusion_norm"),
}
DPM_SOLVER: Table = {**EULER, "method": lambda s: _euler(s) and "dpmsolver++"}


def in_folder(sampling: SamplingConfig, table: Table) -> SamplingConfig:
    """How a folder samples, in the words of a run. Raises UserError for what it must refuse."""
    values = {field.name: table[field.name](sampling) for field in fields(SamplingConfig)}
    return replace(sampling, **values)


def differences(run: SamplingConfig, folder: SamplingConfig) -> dict[str, tuple[Any, Any]]:
    """By the name of a setting: its value in the run, and in the folder."""
    pairs = {f.name: (getattr(run, f.name), getattr(folder, f.name)) for f in fields(run)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def sigmas(sampling: SamplingConfig) -> list[float]:
    """The times of a sampler as diffusers' pipelines take them, before the shift."""
    return [1 - t for t in grid(sampling.steps, 1.0, sampling.last_gap)[:-1]]


@torch.no_grad()
def sampled(
    config: ExperimentConfig,
    backbone: nn.Module,
    encoder: TextEncoder,
    prompt: str,
    noise: Tensor,
    sampling: SamplingConfig,
) -> Tensor:
    """What the run's network, on the CPU in fp32, makes of standard normal noise; not decoded."""
    flow = config.flow
    denoiser = sampling_denoiser(backbone.eval(), flow, sampling)
    field = guided(denoiser, encoder.null, sampling)
    return transport(field, flow.noise_scale * noise, encoder([prompt]), sampling, flow)


@dataclass(frozen=True)
class Difference:
    """Between two images, in standard deviations of the first."""

    mean: float
    most: float

    def __str__(self) -> str:
        return f"{self.mean:.2g} standard deviations on average, {self.most:.2g} at most"


def difference(one: Tensor, other: Tensor) -> Difference:
    apart = (one - other).abs() / one.std()
    return Difference(float(apart.mean()), float(apart.max()))


def told(run: SamplingConfig, folder: SamplingConfig, measured: Difference) -> list[str]:
    """Lines on what the folder does otherwise than the run, and the difference that it makes."""
    lines = [
        f"sampling.{name}: {before} in the run, {now} in the folder"
        for name, (before, now) in differences(run, folder).items()
    ]
    return [*lines, f"so one small image differs by {measured}"] if lines else []
