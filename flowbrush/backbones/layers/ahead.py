"""What a network computes from the time and the condition alone, kept for a solver's many steps.

Where all rows of a batch share their times, adaLN's modulations come for several times at once. A
condition stays the same from step to step: texts are projected (cross-attention: to keys and
values) a single time. What the network says stays the same, up to rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowbrush.backbones.layers.attention import CrossAttention
from flowbrush.backbones.layers.modulation import Modulation
from flowbrush.condition import Condition

ROWS = 512  # of vectors that are modulated at once: times * batch, a bound of the memory


@runtime_checkable
class Modulated(Protocol):
    """A network with one vector for each row that modulates its blocks."""

    def vector(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b d"]: ...


class Place(NamedTuple):
    """Where the vector of one time is among those of its group."""

    group: "Group"
    number: int


class Group:
    """Vectors of several times, and what each modulation makes of them."""

    def __init__(self, vectors: Float[Tensor, "s b d"]) -> None:
        self.all, self.each = vectors, vectors.unbind()
        self.made: dict[nn.Module, list[tuple[Tensor, ...]]] = {}


class Ahead:
    """The memory of one solve. Outputs are known again by the identity of the input."""

    def __init__(self, backbone: Modulated, times: Sequence[float]) -> None:
        self._vector, self._times = backbone.vector, sorted(float(torch.tensor(t)) for t in times)
        self._groups: dict[int, dict[float, Tensor]] = {}  # of each condition
        self._places: dict[int, Place] = {}  # of each vector
        self._kept: dict[tuple[nn.Module, int], Tensor] = {}
        self._steady: dict[int, Any] = {}  # what stays the same, by identity; keeps it alive

    def vector(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b d"]:
        """As the network's own; rows at different times are not computed ahead."""
        now = float(t[0])
        if id(condition) not in self._steady:
            self._know(condition)
        if (t != now).any():
            return self._vector(t, condition)
        known = self._groups.get(id(condition), {})
        if now not in known:
            for vector in known.values():
                del self._places[id(vector)]
            known = self._groups[id(condition)] = self._group(now, len(t), condition)
        return known[now]

    def modulation(
        self, module: Modulation, plain: Callable[[Tensor], tuple[Tensor, ...]], c: Tensor
    ) -> tuple[Tensor, ...]:
        if id(c) not in self._places:
            return plain(c)
        group, number = self._places[id(c)]
        if module not in group.made:
            b = group.all.shape[1]
            parts = [part.split(b) for part in plain(group.all.flatten(0, 1))]
            group.made[module] = list(zip(*parts, strict=True))
        return group.made[module][number]

    def projection(self, module: nn.Module, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if id(x) not in self._steady:
            return plain(x)
        if (module, id(x)) not in self._kept:
            made = self._kept[module, id(x)] = plain(x)
            self._steady[id(made)] = made
        return self._kept[module, id(x)]

    def _know(self, condition: Condition) -> None:
        self._steady[id(condition)] = condition
        for part in (condition.label, condition.text, condition.pooled):
            self._steady[id(part)] = part

    def _group(self, now: float, b: int, condition: Condition) -> dict[float, Tensor]:
        later = [t for t in self._times if t > now]
        times = [now, *later[: max(0, ROWS // b - 1)]] if now in self._times else [now]
        given = Condition(label=condition.label, pooled=condition.pooled)
        rows = given.map(lambda part: part.repeat(len(times), *[1] * (part.ndim - 1)))
        vectors = self._vector(torch.tensor(times).repeat_interleave(b), rows)
        group = Group(vectors.unflatten(0, (len(times), b)))
        self._places |= {id(vector): Place(group, i) for i, vector in enumerate(group.each)}
        return dict(zip(times, group.each, strict=True))


@contextmanager
def computed_ahead(backbone: nn.Module, times: Sequence[float]) -> Iterator[None]:
    """Within it the weights must not change.

    times: at which the network will be asked; any other costs what it did.
    """
    ahead = Ahead(cast(Modulated, backbone), times)
    changed: list[nn.Module] = []

    def replace(module: nn.Module, how: Callable[..., Any]) -> None:
        plain = module.forward
        module.forward = lambda x: how(module, plain, x)
        changed.append(module)

    kinds = nn.Linear, nn.Sequential, nn.Embedding
    readers = [module for module in backbone.children() if isinstance(module, kinds)]
    for module in backbone.modules():
        if isinstance(module, Modulation):
            replace(module, ahead.modulation)
        elif isinstance(module, CrossAttention):
            replace(module.kv, ahead.projection)
        elif module in readers:
            replace(module, ahead.projection)
    backbone.vector = ahead.vector  # type: ignore[assignment]
    try:
        yield
    finally:
        del backbone.vector
        for module in changed:
            del module.forward
