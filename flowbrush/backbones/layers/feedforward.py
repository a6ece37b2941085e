"""The part of a block that mixes channels."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, silu


class GELUFeedForward(nn.Module):
    """Two layers with the tanh form of GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.fc2(gelu(self.fc1(x), approximate="tanh"))


class SwiGLU(nn.Module):
    """Gated linear unit (Shazeer 2020): w3(silu(gate) * up), gate and up from one layer."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        gate, up = self.w12(x).chunk(2, dim=-1)
        return self.w3(self.dropout(silu(gate) * up))
