"""Settings of a diffusers scheduler: each is followed, without effect here, or refused by name.

A scheduler decides where a sampler stops, and of a diffusion what its network was trained on. So a
setting that is left unread gives other images without a word. Each class that is read has a list
of all its settings; what is not in it is refused too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowbrush.errors import UserError

FILE = "scheduler_config.json"


@dataclass(frozen=True)
class Settings:
    """Of one class.

    followed: an import reads them. idle: they change nothing of what an import reads.
    only: each has one value that an import is right for, which is diffusers' default.
    """

    followed: frozenset[str]
    idle: frozenset[str]
    only: Mapping[str, Any]


_NO_OTHER_TIMES = {"use_karras_sigmas": False, "use_exponential_sigmas": False}
_BETAS = {"beta_start", "beta_end", "beta_schedule", "prediction_type"}
_OF_BETAS = {
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "thresholding": False,
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
_OF_THRESHOLDS = {"dynamic_thresholding_ratio", "sample_max_value"}  # without thresholding idle

EULER = Settings(
    followed=frozenset(
        {
            "shift",
            "use_dynamic_shifting",
            "base_shift",
            "max_shift",
            "base_image_seq_len",
            "max_image_seq_len",
            "time_shift_type",
        }
    ),
    idle=frozenset(),
    only={
        "num_train_timesteps": 1000,
        "invert_sigmas": False,
        "shift_terminal": None,
        "use_beta_sigmas": False,
        "stochastic_sampling": False,
        **_NO_OTHER_TIMES,
    },
)
FLOW_MAP = Settings(
    followed=frozenset({"shift", "prediction_type"}),
    idle=frozenset({"init_noise_sigma"}),
    only={"num_train_timesteps": 1000},
)
DPM_SOLVER = Settings(
    followed=frozenset(_BETAS),
    idle=frozenset(_OF_THRESHOLDS | {"flow_shift", "time_shift_type", "variance_type"}),
    only={
        "num_train_timesteps": 1000,
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "use_beta_sigmas": False,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "use_dynamic_shifting": False,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": float("-inf"),
        **_NO_OTHER_TIMES,
        **_OF_BETAS,
    },
)
FLOW_CLASSES = {
    "FlowMatchEulerDiscreteScheduler": EULER,
    "FlowMapEulerDiscreteScheduler": FLOW_MAP,
}
PIXART_CLASSES = {
    "DPMSolverMultistepScheduler": DPM_SOLVER,
    "FlowMapEulerDiscreteScheduler": FLOW_MAP,
}


def check_scheduler(
    scheduler: Mapping[str, Any], classes: Mapping[str, Settings], folder: str
) -> None:
    """Raises UserError, which begins with `folder`, for a setting that an import does not follow.

    An empty scheduler is none at all.
    """
    if not scheduler:
        return
    name = str(scheduler.get("_class_name"))
    if name not in classes:
        raise UserError(
            f"{folder}: its scheduler is {name}, which is not followed; put the {FILE} of "
            f"{' or '.join(classes)} in its place"
        )
    settings = classes[name]
    for key, value in scheduler.items():
        if key.startswith("_") or key in settings.followed | settings.idle:
            continue
        if key not in settings.only:
            raise UserError(
                f"{folder}: scheduler: {key} is {value!r}, and {name} has no such setting here; "
                f"remove it from {FILE}"
            )
        if value != (wanted := settings.only[key]) and (value or wanted):
            raise UserError(
                f"{folder}: scheduler: {key} is {value!r}, which is not followed; with {wanted!r} "
                f"in {FILE} it is imported, and samples so"
            )


def flow_shift(scheduler: Mapping[str, Any], tokens: int) -> float:
    """The shift of the times; a dynamic one grows with the number of tokens."""
    if not scheduler.get("use_dynamic_shifting", False):
        return float(scheduler.get("shift", 1.0))
    few, many = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    low, high = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    mu = float(low + (high - low) * (tokens - few) / (many - few))
    return mu if scheduler.get("time_shift_type") == "linear" else math.exp(mu)
