"""A network and what it predicts, seen from above as one thing: a velocity field."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.path import Pictures, Prediction, to_velocity
from flowbrush.flow.times import TimesConfig

# (x_t, t, condition) -> velocity. A solver gives t on the CPU, in float64.
VelocityField = Callable[[Pictures, Float[Tensor, " b"], Condition], Pictures]


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """What is learned: which prediction, in which space, at which times, from how much noise."""

    prediction: Prediction = "velocity"
    loss_space: Prediction = "velocity"
    t_eps: float = 0.05  # the smallest gap, 1 - t or t, that a prediction is divided by in training
    noise_scale: float = 1.0  # standard deviation of the noise; JiT takes 2 at 512 px
    times: TimesConfig = TimesConfig()
    diffusion: DiffusionConfig | None = None  # of weights that were trained as one elsewhere

    def __post_init__(self) -> None:
        if not 0 < self.t_eps < 1 or self.noise_scale <= 0:
            raise UserError(
                f"flow: t_eps {self.t_eps} must be in (0, 1), "
                f"noise_scale {self.noise_scale} above 0"
            )
        if self.times.distribution == "diffusion" and self.diffusion is None:
            raise UserError(
                "flow.times.distribution: 'diffusion' draws the steps of flow.diffusion, and there "
                "is none; choose uniform or logit_normal"
            )

    @property
    def ends_at_prediction(self) -> bool:
        """Whether the last step of sampling is Euler's, which ends at the predicted data.

        A network that predicts data has no velocity at t = 1: its gap there is zero.
        """
        return self.prediction == "data" or self.diffusion is not None


class Denoiser(nn.Module):
    """`backbone` as a VelocityField.

    backbone: (x_t, t, condition) -> a prediction of kind `prediction`, same shape as x_t.
    t_eps: the smallest gap that the prediction is divided by.
    diffusion: None = the network meets x_t and t as they are.
    """

    def __init__(
        self,
        backbone: nn.Module,
        prediction: Prediction,
        t_eps: float,
        diffusion: DiffusionConfig | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.prediction, self.t_eps = backbone, prediction, t_eps
        self.diffusion = diffusion

    def predict(self, x_t: Pictures, t: Float[Tensor, " b"], condition: Condition) -> Pictures:
        """The network's own prediction, in the dtype of x_t."""
        return self._output(x_t, t, condition)[:, : x_t.shape[1]]

    def forward(self, x_t: Pictures, t: Float[Tensor, " b"], condition: Condition) -> Pictures:
        """The velocity at (x_t, t)."""
        output = self.predict(x_t, t, condition)
        return to_velocity(output, self.prediction, x_t, t, self.t_eps)

    def with_variance(
        self, x_t: Pictures, t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b out h w"]:
        """The velocity at (x_t, t); after it, in channels of its own, the learned variance."""
        output, c = self._output(x_t, t, condition), x_t.shape[1]
        velocity = to_velocity(output[:, :c], self.prediction, x_t, t, self.t_eps)
        return torch.cat([velocity, output[:, c:]], dim=1)

    def _output(
        self, x_t: Pictures, t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b out h w"]:
        x, t = self.diffusion.seen(x_t, t) if self.diffusion else (x_t, t)
        dtype = next(self.backbone.parameters(), x).dtype
        t = t.to(torch.promote_types(dtype, torch.float32))
        output: Tensor = self.backbone(x.to(dtype), t, condition)
        return output.to(x_t.dtype)
