"""A plan in lines that a user reads."""

from collections.abc import Sequence

import torch

from flowbrush.plan.memory import SPARE
from flowbrush.plan.plan import Plan


def rows(plan: Plan) -> Sequence[tuple[str, str, str]]:
    """What, how much, and what is to be known of it."""
    config, asked, rates, weights = plan.config, plan.asked, plan.rates, plan.weights
    kind = "fp32" if plan.dtype == torch.float32 else "bf16"
    settings, devices = config.train, asked.devices
    found = [("weights", "", "")]
    frozen = weights.all - weights.trained
    found.append(
        ("  learned", _millions(weights.trained), f"{_millions(frozen)} fixed" if frozen else "")
    )
    for one in plan.frozen:
        found.append((f"  {one.name}", _millions(one.weights), "learns nothing"))
    found.append(("FLOPs of a picture", "", "two for a multiplication and its addition"))
    found.append(
        ("  network, forward", _flops(plan.forward), "counted, its text as long as it can be")
    )
    found.append(("  network, learning", _flops(plan.learning), "three times that"))
    for one in plan.frozen:
        found.append((f"  {one.name}", _flops(one.flops), ""))

    where = (
        f"memory of one of {devices} x {rates.name}" if devices > 1 else f"memory of {rates.name}"
    )
    parts = -(-plan.pictures // settings.accumulate)
    pictures = f"{plan.pictures} pictures"
    pictures += f" in {settings.accumulate} parts of {parts}" if settings.accumulate > 1 else ""
    how = [pictures, kind]
    how += [f"sharding {settings.sharding}"] if settings.sharding != "none" else []
    how += ["recomputed"] if settings.recompute else []
    found.append((where, _gib(rates.memory), ", ".join(how)))
    found += [(f"  {part.name}", _gib(part.size), "") for part in plan.memory.parts]
    over = plan.memory.peak > SPARE * rates.memory
    found.append(("  at most", _gib(plan.memory.peak), "MORE THAN THERE IS" if over else ""))
    beside = "of this memory as well" if asked.device == "cpu" else "of the host's memory"
    found.append(("  while a checkpoint is written", "+ " + _gib(plan.memory.snapshot), beside))
    found.append(("largest batch that fits", f"{plan.most * devices:,}", f"{plan.most:,} a device"))
    if (parts_needed := plan.accumulate) is None:
        said = (
            "not one picture fits: --train.sharding full, --train.recompute, or a smaller network"
        )
    else:
        said = f"for a batch of {config.batch.size}"
    found.append(("train.accumulate", "-" if parts_needed is None else str(parts_needed), said))

    peak = f"of {rates.peak / 1e12:,.4g} TFLOP/s {kind} a device ({rates.told})"
    found.append(("utilisation", f"{rates.utilisation:.1%}", peak))
    update = f"of which clip, AdamW and averages {plan.update_seconds * 1e3:,.3g} ms"
    found.append(("a step", _duration(plan.step_seconds), update))
    told = "reading must keep up; what processes say to one another is not counted"
    found.append(("pictures a second", f"{plan.pictures_per_second:,.4g}", told))
    whole = f"{settings.pictures:,} pictures; without previews, checkpoints and measuring"
    found.append(("to the recipe's end", _duration(plan.days * 86_400), whole))
    hours = 24 * plan.days * devices
    found.append(("device hours", f"{hours:,.3g}", ""))
    if asked.price:
        found.append(("money", f"{hours * asked.price:,.2f}", f"at {asked.price:g} a device hour"))
    found += [("note", "", remark) for remark in plan.remarks]
    return found


def table(plan: Plan) -> list[str]:
    """The rows, aligned."""
    found = rows(plan)
    first, second = (max(len(row[i]) for row in found) for i in (0, 1))
    return [f"{what:{first}}  {much:>{second}}  {told}".rstrip() for what, much, told in found]


def _millions(count: int | None) -> str:
    return "not counted" if count is None else f"{count / 1e6:,.1f} M"


def _flops(count: int | None) -> str:
    if count is None:
        return "not counted"
    return f"{count / 1e12:,.2f} T" if count >= 1e12 else f"{count / 1e9:,.2f} G"


def _gib(size: int | float) -> str:
    return f"{size / 2**30:,.2f} GiB"


def _duration(seconds: float) -> str:
    for length, name in ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * length or (length == 1 and seconds >= 1):
            return f"{seconds / length:,.3g} {name}"
    return f"{seconds * 1e3:,.3g} ms"
