"""Where the patches of a picture look in its text while it is painted.

    P = softmax(q k^T / sqrt(e))        for each head, of width e

Each patch's row sums to 1.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from flowbrush.backbones.layers.attention import CrossAttention
from flowbrush.errors import UserError


@dataclass(frozen=True)
class Look:
    """What one cross-attention did at one time.

    Under guidance the second half of the batch is without its caption.
    """

    t: float
    layer: int  # 0 is next to the noisy picture
    probabilities: Float[Tensor, "b k n m"]  # of each head, where each patch looks in the text


@contextmanager
def recorded_attention(backbone: nn.Module) -> Iterator[list[Look]]:
    """Within it every CrossAttention of `backbone` leaves what it does in the list.

    It is computed beside the network, which paints what it would have painted anyway.
    Raises UserError for a backbone without any.
    """
    layers = [module for module in backbone.modules() if isinstance(module, CrossAttention)]
    if not layers:
        raise UserError(f"a {type(backbone).__name__} has no cross-attention; take a PixArt")
    looks: list[Look] = []
    now = math.nan

    def begins(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal now
        now = float(inputs[1][0])

    def looked(module: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> None:
        assert isinstance(module, CrossAttention)
        looks.append(Look(now, layers.index(module), probabilities(module, *inputs).cpu()))

    hooks = [layer.register_forward_hook(looked) for layer in layers]
    hooks.append(backbone.register_forward_pre_hook(begins))
    try:
        yield looks
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def probabilities(
    attention: CrossAttention,
    x: Float[Tensor, "b n d"],
    context: Float[Tensor, "b m d"],
    mask: Bool[Tensor, "b 1 1 m"] | None = None,
) -> Float[Tensor, "b k n m"]:
    """The shares with which each patch mixes the tokens' values, in fp32."""
    q = rearrange(attention.q(x), "b n (k e) -> b k n e", k=attention.heads).float()
    k, _ = rearrange(attention.kv(context), "b m (s k e) -> s b k m e", s=2, k=attention.heads)
    scores = q @ k.float().mT / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


def maps_at(
    looks: Sequence[Look], t: float, layer: int | None = None, row: int = 0
) -> Float[Tensor, "m h w"]:
    """For each token, how much each patch of picture `row` looks at it: the mean over the heads.

    t: the nearest time that there is. layer: None = the mean over all. The patches are a square.
    """
    nearest = min((look.t for look in looks), key=lambda there: abs(there - t))
    chosen = [
        look.probabilities[row].mean(dim=0)
        for look in looks
        if look.t == nearest and layer in (None, look.layer)
    ]
    mean = torch.stack(chosen).mean(dim=0)  # (n, m)
    return rearrange(mean, "(h w) m -> m h w", h=math.isqrt(len(mean)))
