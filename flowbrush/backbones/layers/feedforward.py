"""The part of a block that mixes channels."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad, silu

from flowbrush.backbones.layers.linear import Linear


class GELUFeedForward(nn.Module):
    """Two layers with the tanh form of GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = Linear(width, hidden), Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.fc2(gelu(self.fc1(x), approximate="tanh"))


class SwiGLU(nn.Module):
    """Gated linear unit (Shazeer 2020): w3(silu(gate) * up), gate and up from one layer."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.w12, self.w3 = Linear(width, 2 * hidden), Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        if x.is_cuda and self.w3.in_features % 8:  # on a CPU the copies cost more than they save
            return self.aligned(x)
        gate, up = self.w12(x).chunk(2, dim=-1)
        return self.w3(self.dropout(silu(gate) * up))

    def aligned(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The same to rounding, with hidden channels of zeros up to a multiple of 64.

        A GPU's fast kernels want rows that begin at multiples of 16 bytes.
        """
        hidden = self.w3.in_features
        missing = -hidden % 64
        w12 = pad(self.w12.weight.unflatten(0, (2, hidden)), (0, 0, 0, missing)).flatten(0, 1)
        bias = pad(self.w12.bias.unflatten(0, (2, hidden)), (0, missing)).flatten()
        gate, up = linear(x, w12, bias).chunk(2, dim=-1)
        mixed = self.dropout(silu(gate) * up)
        return linear(mixed, pad(self.w3.weight, (0, missing)), self.w3.bias)
