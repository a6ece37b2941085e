"""`flowbrush plan`: what a recipe will need, before it is begun."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from flowbrush.cli.options import Tiny, experiment, first_word, parse


def plan(arguments: list[str]) -> int:
    usage = "plan RECIPE|RUN [options]"
    target, rest = first_word(arguments, usage, "a recipe's name or a run's folder")
    import torch

    import flowbrush.train.loop  # noqa: F401 -- what training has in memory is counted as well
    from flowbrush.experiment import ExperimentConfig
    from flowbrush.plan.host import resident
    from flowbrush.text import SentenceConfig

    begun = experiment(target, "emoji", "--tiny" in rest, "plan")
    bare = resident()
    from flowbrush.plan.plan import HERE, PlanConfig, readable_source
    from flowbrush.plan.plan import plan as planned
    from flowbrush.plan.table import table

    @dataclass(frozen=True)
    class Planning:
        options: Annotated[PlanConfig, tyro.conf.arg(name="")]
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
        tiny: Tiny = False

    program = f"flowbrush plan {target or 'RECIPE'}"
    chosen = parse(Planning, Planning(PlanConfig(), begun), rest, program)
    config, options = chosen.config, chosen.options
    before = resident()
    source = readable_source(config)
    if options.device in HERE and isinstance(config.text, SentenceConfig):
        config.text.build(torch.device("cpu"))
    print("\n".join(table(planned(config, options, source, bare + resident() - before))))
    return 0
