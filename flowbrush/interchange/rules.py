"""How a published network's weights are named and laid out: a list of rules, read both ways.

    Rule("patches.weight", "x_embedder.proj.weight", flat, unflat(16, 3, 2, 2))

A name with `{i}` stands for one of each block. Going there and back gives the same bits.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flowbrush.errors import UserError

Weights = dict[str, Tensor]


def same(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tensors


@dataclass(frozen=True)
class Rule:
    """Our weights `ours` are the published weights `theirs`, each one name or several.

    to_ours, to_theirs: from as many tensors as one side has names to as many as the other has.
    """

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    to_ours: Callable[..., tuple[Tensor, ...]] = same
    to_theirs: Callable[..., tuple[Tensor, ...]] = same

    def expanded(self, blocks: int) -> "list[Rule]":
        """One rule for each block, where the names hold `{i}`."""
        ours, theirs = _names(self.ours), _names(self.theirs)
        if "{i}" not in (ours + theirs)[0]:
            return [self]

        def numbered(names: tuple[str, ...], i: int) -> tuple[str, ...]:
            return tuple(name.replace("{i}", str(i)) for name in names)

        return [
            Rule(numbered(ours, i), numbered(theirs, i), self.to_ours, self.to_theirs)
            for i in range(blocks)
        ]


@dataclass(frozen=True)
class Table:
    """A published weight that follows from the sizes alone, such as fixed positions.

    It is checked, made anew, never kept.
    """

    theirs: str
    value: Callable[[], Tensor]


def pair(ours: str, theirs: str) -> list[Rule]:
    """The weight and the bias of a layer, as they are."""
    return [Rule(f"{ours}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]


def fused(ours: str, *theirs: str) -> list[Rule]:
    """Layers that are one here and several there, joined along their outputs; weight and bias."""

    def split(joined: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.contiguous() for part in joined.chunk(len(theirs)))

    return [
        Rule(
            f"{ours}.{part}",
            tuple(f"{name}.{part}" for name in theirs),
            lambda *parts: (torch.cat(parts),),
            split,
        )
        for part in ("weight", "bias")
    ]


def halves_swapped(ours: str, theirs: str) -> list[Rule]:
    """A layer that says (shift, scale) here and (scale, shift) there; weight and bias."""

    def swap(tensor: Tensor) -> tuple[Tensor, ...]:
        return (torch.cat(tensor.chunk(2)[::-1]),)

    return [Rule(f"{ours}.{part}", f"{theirs}.{part}", swap, swap) for part in ("weight", "bias")]


def negated(ours: str, theirs: str) -> list[Rule]:
    """A layer whose output has the other sign there; weight and bias."""

    def negate(tensor: Tensor) -> tuple[Tensor, ...]:
        return (-tensor,)

    return [
        Rule(f"{ours}.{part}", f"{theirs}.{part}", negate, negate) for part in ("weight", "bias")
    ]


def patch_convolution(ours: str, theirs: str, channels: int, patch: int) -> Rule:
    """A linear layer on flattened patches here, a strided convolution there; the weight alone."""
    return Rule(
        f"{ours}.weight",
        f"{theirs}.weight",
        lambda kernel: (kernel.flatten(1),),
        lambda matrix: (matrix.view(len(matrix), channels, patch, patch),),
    )


def to_ours(
    rules: Iterable[Rule | Table], blocks: int, published: Mapping[str, Tensor], what: str
) -> Weights:
    """The published weights under our names.

    Raises UserError, beginning with `what`, that lists at most five keys missing or without a rule.
    """
    spelt, tables = _spelt(rules, blocks)
    known = {name for rule in spelt for name in _names(rule.theirs)} | {t.theirs for t in tables}
    _refuse(what, "missing", sorted(known - set(published)))
    _refuse(what, "extra", sorted(set(published) - known))
    for table in tables:
        found = published[table.theirs]
        if not torch.equal(found, table.value().to(found.dtype)):
            raise UserError(f"{what}: {table.theirs} is not the fixed table that it should be")
    weights: Weights = {}
    for rule in spelt:
        try:
            tensors = rule.to_ours(*(published[name] for name in _names(rule.theirs)))
        except (RuntimeError, IndexError, ValueError):
            shape = tuple(published[_names(rule.theirs)[0]].shape)
            raise UserError(
                f"{what}: {_names(rule.theirs)[0]} is {shape}, which does not fit this network"
            ) from None
        weights |= dict(zip(_names(rule.ours), tensors, strict=True))
    return weights


def to_theirs(rules: Iterable[Rule | Table], blocks: int, ours: Mapping[str, Tensor]) -> Weights:
    """Our weights under the published names.

    Raises UserError where some of ours have no like there.
    """
    spelt, tables = _spelt(rules, blocks)
    known = {name for rule in spelt for name in _names(rule.ours)}
    _refuse("backbone", "not among what is published:", sorted(set(ours) - known))
    weights = {table.theirs: table.value() for table in tables}
    for rule in spelt:
        tensors = rule.to_theirs(*(ours[name] for name in _names(rule.ours)))
        weights |= dict(zip(_names(rule.theirs), tensors, strict=True))
    return weights


def check_shapes(what: str, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises UserError for the first weight whose shape is not that of the network it is for."""
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            raise UserError(
                f"{what}: {name} is {tuple(weight.shape)}, where {tuple(expected[name].shape)} "
                "belongs"
            )


def _spelt(rules: Iterable[Rule | Table], blocks: int) -> tuple[list[Rule], list[Table]]:
    spelt: list[Rule] = []
    tables: list[Table] = []
    for rule in rules:
        if isinstance(rule, Table):
            tables.append(rule)
        else:
            spelt += rule.expanded(blocks)
    return spelt, tables


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _refuse(what: str, how: str, keys: list[str]) -> None:
    if keys:
        more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        raise UserError(f"{what}: {how} {', '.join(keys[:5])}{more}")
