"""`flowbrush evaluate latents` and `reference`: pictures measured once, before a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from flowbrush.cli.options import experiment, first_word, parse
from flowbrush.errors import UserError


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
    from flowbrush.experiment import ExperimentConfig, unprepared
    from flowbrush.processes import choose_device
    from flowbrush.spaces import LatentConfig
    from flowbrush.spaces.statistics import latent_statistics

    begun = experiment(target, "emoji-latent", False, "evaluate latents")

    @dataclass(frozen=True)
    class Latents:
        options: Annotated[LatentsOptions, tyro.conf.arg(name="")]
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")]

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


@dataclass(frozen=True)
class ReferenceOptions:
    """Which pictures, by which features, and where the file goes."""

    to: Path = Path("reference.npz")
    """the file: --reference of flowbrush evaluate RUN"""
    features: Literal["efficientnet", "inception", "clip", "dinov2"] = "efficientnet"
    """inception for FID, dinov2 for FD-DINOv2, clip for CMMD"""
    limit: int = 0
    """pictures, evenly over the source; 0 = all"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""


def reference(arguments: list[str]) -> int:
    """Statistics of real pictures for FID and its like, made once and named in the file."""
    usage = "evaluate reference RECIPE|RUN [options]"
    target, rest = first_word(arguments, usage, "a recipe's name or a run's folder")
    from flowbrush.evaluate.features import FeaturesModels
    from flowbrush.evaluate.reference import make_reference
    from flowbrush.experiment import ExperimentConfig, unprepared
    from flowbrush.processes import choose_device

    begun = experiment(target, "emoji", False, "evaluate reference")

    @dataclass(frozen=True)
    class Referring:
        options: Annotated[ReferenceOptions, tyro.conf.arg(name="")]
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
        models: Annotated[FeaturesModels, tyro.conf.arg(name="")] = FeaturesModels()

    given = Referring(ReferenceOptions(), begun)
    chosen = parse(Referring, given, rest, f"flowbrush {usage}")
    options, config = chosen.options, chosen.config
    if options.to.suffix != ".npz":
        raise UserError(f"--to {options.to}: end it in .npz")
    pictures = unprepared(config.source)
    source = pictures.build(config.size)
    features = chosen.models.named(options.features).build(choose_device(options.device))
    described = f"{target}: {pictures}, {config.size} px"
    made = make_reference(source, features, options.limit, print, described)
    made.save(options.to)
    print(f"{options.to}: {made.gaussian.count:,} pictures, {made.features}")
    return 0
