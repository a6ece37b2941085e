"""`flowbrush prepare`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from flowbrush.cli.options import Tiny, experiment, first_word, parse


def prepare(arguments: list[str]) -> int:
    target, rest = first_word(arguments, "prepare RECIPE|RUN --to DIR [options]", "a recipe's name")
    from flowbrush.experiment import ExperimentConfig
    from flowbrush.prepare.prepare import PrepareConfig
    from flowbrush.prepare.prepare import prepare as prepare_all

    begun = experiment(target, "emoji", "--tiny" in rest, "prepare")

    @dataclass(frozen=True)
    class Prepare:
        options: Annotated[PrepareConfig, tyro.conf.arg(name="")]
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
        tiny: Tiny = False

    program = f"flowbrush prepare {target or 'RECIPE'}"
    chosen = parse(Prepare, Prepare(PrepareConfig(), begun), rest, program)
    done, to = prepare_all(chosen.config, chosen.options), chosen.options.to
    print(
        f"{to}: {done.pictures:,} pictures encoded, {done.pictures / done.seconds:.1f} a second; "
        f"{done.size / 1e6:,.1f} MB"
    )
    made = done.manifest
    if made.complete:
        broken = f"; {made.broken:,} broken ones are listed in its records" if made.broken else ""
        print(f"{to}: complete, {sum(made.samples):,} pictures in {made.shards:,} shards{broken}")
        small = " --tiny" if chosen.tiny else ""
        print(f"train with: flowbrush train {target}{small} --prepared {to}")
    return 0
