"""The networks in a file of weights, out of whatever their trainers wrapped around them.

    {"model": {"module._orig_mod.net.x_embedder.proj1.weight": ...}, "model_ema1": ..., "epoch": 3}

Containers and prefixes are one thing here: names joined by dots. Each family has a sign, a key
that only its networks have; what stands before it is what was wrapped around the network.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowbrush.errors import UserError
from flowbrush.finite import check_finite
from flowbrush.interchange.rules import Weights

# A key that only this family's published weights have. Flux has SD3's too, so it comes first.
SIGNS = {
    "x_embedder.proj1.weight": "jit",
    "y_embedder.embedding_table.weight": "dit or sit",
    "adaln_single.linear.weight": "pixart",
    "double_blocks.0.img_attn.qkv.weight": "flux, in its authors' layout",
    "single_transformer_blocks.0.norm.linear.weight": "flux",
    "transformer_blocks.0.norm1_context.linear.weight": "sd3",
}
_UNREAD = {
    "joint_blocks.0.context_block.attn.qkv.weight": "an SD3 in its authors' layout; fetch the "
    "folder that diffusers writes",
    "t_block.1.weight": "a PixArt in its authors' layout; fetch the folder that diffusers writes",
    "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight": "a DiT in diffusers' "
    "layout; fetch its authors' .pt",
    "input_blocks.0.0.weight": "a U-Net, which no family here has",
    "down_blocks.0.resnets.0.conv1.weight": "a U-Net or an autoencoder, which no family here has",
}
_LORA = re.compile(r"\blora_(A|B|up|down)\b")
_WRITTEN_BY_TORCH = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
_AVERAGE = {"ema", "average", "averaged", "avg", "swa", "shadow"}


@dataclass(frozen=True)
class Networks:
    """What a file holds. place: the names that stood before the network's own, such as `ema`."""

    model: Weights
    averages: dict[str, Weights]  # by place, in the order of their names
    unread: tuple[str, ...] = ()  # places of averages that fit no network here


def find_networks(contents: Mapping[str, Any], file: str) -> Networks:
    """The network of a file, and its averages, under its family's own names.

    A file of nothing but averages has the first of them as its model. An average that is a list,
    or has names without their dots, is read where it fits the model exactly.
    Raises UserError, which begins with `file`, where there is none, where there are several, and
    where weights are quantised or not finite.
    """
    named = _plain_names(_flat(contents), file)
    found = {prefix: _inside(prefix, named) for prefix in _prefixes(named)}
    for prefix in found:
        for longer in found:
            if longer != prefix and longer.startswith(prefix):
                for name in found[longer]:
                    del found[prefix][longer.removeprefix(prefix) + name]
    if not found:
        raise UserError(f"{file}: {_what_it_is(named)}")
    averages = {prefix[:-1]: found[prefix] for prefix in sorted(found) if _is_average(prefix)}
    models = [weights for prefix, weights in found.items() if not _is_average(prefix)]
    if len(models) > 1:
        places = ", ".join(repr(p) for p in found if not _is_average(p))
        raise UserError(f"{file}: several networks, under {places}; keep one of them")
    chosen = (models or list(averages.values()))[0]
    unread: list[str] = []
    for place, tensors in _unnamed_averages(contents, named, list(found)).items():
        if (average := _fitted(tensors, chosen)) is None:
            unread.append(place)
        else:
            averages[place] = average
    return Networks(
        _checked(chosen, file),
        {place: _checked(averages[place], f"{file}: {place}") for place in sorted(averages)},
        tuple(unread),
    )


def guess_family(keys: Iterable[str]) -> str | None:
    """The family whose published weights have such keys."""
    present = set(keys)
    return next((family for sign, family in SIGNS.items() if sign in present), None)


def _flat(contents: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in dicts of dicts, but for an optimizer's, by its names joined by dots."""
    for name, value in contents.items():
        if isinstance(value, Tensor):
            yield f"{before}{name}", value
        elif isinstance(value, Mapping) and not str(name).startswith(("opt", "scaler")):
            yield from _flat(value, f"{before}{name}.")


def _plain_names(tensors: Iterable[tuple[str, Tensor]], file: str) -> Weights:
    """Names without the parts that torch writes amid them where it wraps a layer."""
    named: Weights = {}
    for name, tensor in tensors:
        plain = ".".join(part for part in name.split(".") if part not in _WRITTEN_BY_TORCH)
        if plain in named:
            raise UserError(f"{file}: {plain} is there twice, once as {name}")
        named[plain] = tensor
    return named


def _prefixes(named: Weights) -> list[str]:
    """What stands before a family's sign, with the dot at its end."""
    found = {
        name.removesuffix(sign): None
        for sign in SIGNS
        for name in named
        if name == sign or name.endswith(f".{sign}")
    }
    return list(found)


def _inside(prefix: str, named: Weights) -> Weights:
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


def _is_average(prefix: str) -> bool:
    return any(part.strip("0123456789") in _AVERAGE for part in re.split(r"[._]", prefix))


def _unnamed_averages(
    contents: Mapping[str, Any], named: Weights, networks: list[str]
) -> dict[str, list[Tensor] | Weights]:
    """By place: averages that are lists, or whose names are those of none of the networks.

    An average's single numbers, such as its decay, are no weights.
    """
    found: dict[str, list[Tensor] | Weights] = dict(_lists(contents))
    for name, tensor in named.items():
        place = name.rpartition(".")[0]
        if any(name.startswith(prefix) for prefix in networks if _is_average(prefix)):
            continue
        if not _is_average(place) or not tensor.ndim or "exp_avg" in name:  # Adam's
            continue
        if any(not _is_average(p) and p and name.startswith(p) for p in networks):
            continue
        place = next(p for p in _places(place) if _is_average(p))
        group = found.setdefault(place, {})
        if isinstance(group, dict):
            group[name.removeprefix(f"{place}.")] = tensor
    return found


def _places(name: str) -> Iterator[str]:
    """a, a.b, a.b.c of a.b.c."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def _lists(contents: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, list[Tensor]]]:
    """Averages that are lists of tensors, such as `ema.shadow_params`."""
    for name, value in contents.items():
        place = f"{before}{name}"
        if isinstance(value, Mapping) and not str(name).startswith(("opt", "scaler")):
            yield from _lists(value, f"{place}.")
        elif isinstance(value, list | tuple) and _is_average(place):
            tensors = [tensor for tensor in value if isinstance(tensor, Tensor)]
            if tensors:
                yield place, tensors


def _fitted(tensors: list[Tensor] | Weights, model: Weights) -> Weights | None:
    """An average under the model's names; None where it is not sure to be the model's.

    A list has the order of the model's weights. Fixed positions may be left out of it.
    """
    trained = {name: w for name, w in model.items() if name.split(".")[-1] != "pos_embed"}
    if isinstance(tensors, list):
        sizes = [tensor.shape for tensor in tensors]
        for names in (list(model), list(trained)):
            if sizes == [model[name].shape for name in names]:
                return model | dict(zip(names, tensors, strict=True))
        return None
    dotless = {name.replace(".", ""): name for name in model}
    before = _before(tensors, dotless)
    found = {dotless[own]: w for own, w in _inside(before, tensors).items() if own in dotless}
    exact = len(found) == len(tensors) and set(trained) <= set(found)
    if not exact or any(weight.shape != model[name].shape for name, weight in found.items()):
        return None
    return model | found


def _before(names: Iterable[str], dotless: Iterable[str]) -> str:
    """What stands before a network's names without dots, such as `diffusion_model`."""
    last = max(dotless, key=len)
    return next((name.removesuffix(last) for name in names if name.endswith(last)), "")


def _what_it_is(named: Weights) -> str:
    if not named:
        return "no weights by name in it"
    if any(_LORA.search(name) for name in named):
        return "a LoRA, not a whole network; merge it into its network first"
    for sign, kind in _UNREAD.items():
        if any(name == sign or name.endswith(f".{sign}") for name in named):
            return kind
    first = ", ".join(list(named)[:5])
    return f"no network of a known family; its {len(named)} keys begin with {first}"


def _checked(weights: Weights, what: str) -> Weights:
    """With floating-point numbers of 8 bits, which torch hardly computes with, in 16."""
    for name, weight in weights.items():
        if not weight.is_floating_point():
            kind = str(weight.dtype).removeprefix("torch.")
            raise UserError(f"{what}: {name} is {kind}, so it is quantised; fetch the full weights")
    wide = {k: w.to(torch.bfloat16) if w.element_size() == 1 else w for k, w in weights.items()}
    check_finite(wide, what)
    return wide
