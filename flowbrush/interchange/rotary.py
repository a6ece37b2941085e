"""RoPE turns neighbouring channels of a head in published weights, and its two halves here.

The channels of queries and keys are therefore put in another order, those of their norms with them;
their products, and so the attention, stay the same.
"""

import torch
from torch import Tensor

from flowbrush.interchange.rules import Rule


def as_halves(qkv: Tensor, heads: int) -> Tensor:
    """Published queries, keys and values (3 heads e, ...), one layer, in our order."""
    return _reordered(qkv, heads, _halves(qkv.shape[0] // (3 * heads)))


def as_neighbours(qkv: Tensor, heads: int) -> Tensor:
    """Ours in the published order."""
    return _reordered(qkv, heads, _halves(qkv.shape[0] // (3 * heads)).argsort())


def norms(ours: str, query: str, key: str, head: int) -> list[Rule]:
    """The scales of queries and keys of `head` channels, under `ours`."""
    halves = _halves(head)

    def here(scale: Tensor) -> tuple[Tensor, ...]:
        return (scale[halves],)

    def there(scale: Tensor) -> tuple[Tensor, ...]:
        return (scale[halves.argsort()],)

    return [
        Rule(f"{ours}.q_norm.weight", query, here, there),
        Rule(f"{ours}.k_norm.weight", key, here, there),
    ]


def _halves(head: int) -> Tensor:
    """Where a head's channels are there: the first of each pair of neighbours, then the second."""
    return torch.arange(head).view(-1, 2).T.flatten()


def _reordered(qkv: Tensor, heads: int, order: Tensor) -> Tensor:
    """The channels of each head's queries and keys in another order; the values as they are."""
    parts = qkv.unflatten(0, (3, heads, -1))
    return torch.cat([parts[:2, :, order], parts[2:]]).flatten(0, 2)
