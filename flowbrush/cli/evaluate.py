"""`flowbrush evaluate`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from flowbrush.cli.options import Weights, first_word, parse
from flowbrush.errors import UserError


@dataclass(frozen=True)
class EvaluateOptions:
    """What to measure."""

    limit: int = 400
    """examples, from the first on"""
    languages: tuple[str, ...] = ("en", "ja", "de", "fr", "es", "zh", "ko")
    """of the names that emoji are painted from"""
    weights: Weights = "ema"
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""


def evaluate(arguments: list[str]) -> int:
    run, rest = first_word(arguments, "evaluate RUN [options]", "a run's folder")
    if run in SUBJECTS:
        return SUBJECTS[run](rest)
    options = parse(EvaluateOptions, EvaluateOptions(), rest, "flowbrush evaluate RUN")
    from flowbrush.contact_sheet import save
    from flowbrush.data import EmojiConfig
    from flowbrush.evaluate.right_first import paint_all, sheet, summary
    from flowbrush.experiment import unprepared
    from flowbrush.text_to_image import TextToImage

    painter = TextToImage.load(run, options.weights, options.device)
    config, trained_on = unprepared(painter.config.source), None
    if isinstance(config, EmojiConfig):
        config, trained_on = replace(config, languages=options.languages), config.languages
    painted = paint_all(painter, config.build(painter.config.size), options.limit)
    for line in summary(painted, trained_on):
        print(line)
    out = Path(run) / "painted.png"
    save(sheet(painted), out)
    print(out)
    return 0


# -- evaluate latents


@dataclass(frozen=True)
class LatentsOptions:
    """Which pictures are measured."""

    pictures: int = 2_000
    """about as many, from all over the source"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""


def latents(arguments: list[str]) -> int:
    """How the latents of one's own pictures are distributed, as options to train with."""
    usage = "evaluate latents RECIPE|RUN [options]"
    target, rest = first_word(arguments, usage, "a recipe's name or a run's folder")
    from flowbrush.evaluate.reconstruction import mean_psnr, readable
    from flowbrush.experiment import ExperimentConfig, is_run, load_config, unprepared
    from flowbrush.processes import choose_device
    from flowbrush.recipes import recipe
    from flowbrush.spaces import LatentConfig
    from flowbrush.spaces.statistics import latent_statistics

    begun = load_config(Path(target)) if is_run(Path(target)) else recipe(target or "emoji-latent")

    @dataclass(frozen=True)
    class Latents:
        options: Annotated[LatentsOptions, tyro.conf.arg(name="")]
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")]

    if not isinstance(begun, ExperimentConfig):
        raise UserError(f"evaluate latents: {target} is an autoencoder's; it measures its own")
    chosen = parse(Latents, Latents(LatentsOptions(), begun), rest, f"flowbrush {usage}")
    config, most = chosen.config, chosen.options.pictures
    if not isinstance(config.space, LatentConfig):
        raise UserError(f"evaluate latents: {target} learns in pixels, which need no statistics")
    space = config.space.build(choose_device(chosen.options.device))
    source = unprepared(config.source).build(config.size)
    found = latent_statistics(space, readable(source, most))
    print(f"reconstruction: {mean_psnr(space, source, most):.2f} dB PSNR")
    for how, (mean, std) in (("by channel", found), ("one number", found.together())):
        means = " ".join(f"{value:.6g}" for value in mean)
        print(f"{how}: --space.mean {means} --space.scale {' '.join(f'{1 / v:.6g}' for v in std)}")
    return 0


SUBJECTS = {"latents": latents}
