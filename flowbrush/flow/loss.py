"""The loss of flow matching, for a network of any prediction, taken in any space.

What the network says and what a perfect network would say go through the same conversion, clamp
included, so that a perfect network has loss 0 at all nine combinations (for data in velocity this
is JiT's loss, Li & He 2025).
"""

from jaxtyping import Float
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.path import Pictures, Prediction, convert, interpolate, truth


def flow_loss(
    denoiser: Denoiser,
    data: Pictures,
    noise: Pictures,
    t: Float[Tensor, " b"],
    condition: Condition,
    space: Prediction,
) -> Float[Tensor, " b"]:
    """The mean squared error of each row in `space`, at the times `t`."""
    x_t = interpolate(data, noise, t)
    kind, t_eps = denoiser.prediction, denoiser.t_eps
    said = convert(denoiser.predict(x_t, t, condition), kind, space, x_t, t, t_eps)
    wanted = convert(truth(kind, data, noise), kind, space, x_t, t, t_eps)
    return (said - wanted).square().mean(dim=(1, 2, 3))
