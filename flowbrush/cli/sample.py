"""`flowbrush sample`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from flowbrush.cli.options import Weights, check_ending, first_word, parse, prompts_first
from flowbrush.errors import UserError


@dataclass(frozen=True)
class SampleOptions:
    """What to paint. How to paint is the run's own choice where it is left out.

    Behind -- everything is a prompt, also what begins with -.
    """

    out: Path = Path("painted.png")
    """the picture; several prompts, or several pictures of one, make a captioned sheet"""
    separate: bool = False
    """write each picture on its own as well, without a caption, as NAME-0.png, NAME-1.png, ..."""
    count: int = 1
    """pictures of each prompt"""
    shape: tuple[int, int] | None = None
    """height and width in pixels, of those that the run learns; the square if left out"""
    seed: int = 0
    """the pictures take the seeds SEED, SEED + 1, ..."""
    weights: Weights = "ema"
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""


def sample(arguments: list[str]) -> int:
    run, rest = first_word(arguments, 'sample RUN "PROMPT" ... [options]', "a run's folder")
    prompts, rest = prompts_first(rest)
    from flowbrush.contact_sheet import contact_sheet, save, to_image
    from flowbrush.experiment import ExperimentConfig, load_config
    from flowbrush.flow.sampling import SamplingConfig
    from flowbrush.text_to_image import TextToImage

    @dataclass(frozen=True)
    class Sample:
        options: Annotated[SampleOptions, tyro.conf.arg(name="")]
        sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")]

    config = load_config(Path(run)) if run else ExperimentConfig()
    given = Sample(SampleOptions(), config.sampling)
    chosen = parse(Sample, given, rest, f"flowbrush sample {run or 'RUN'} PROMPT ...")
    options = chosen.options
    if not prompts:
        raise UserError(
            'sample: no prompt; write flowbrush sample RUN "a fox" (or RUN -- "-one like this")'
        )
    if options.count < 1:
        raise UserError(f"--count {options.count}: it must be 1 or more")
    check_ending(options.out)
    painter = TextToImage.load(run, options.weights, options.device)
    if (size := painter.config.size) != config.size:
        print(f"{run}: not yet in its last stage; painted at {size} pixels, not {config.size}")
    captions = [prompt for prompt in prompts for _ in range(options.count)]
    seeds = list(range(options.seed, options.seed + len(captions)))
    pictures = painter.generate(captions, chosen.sampling, seeds, shape=options.shape)
    columns = options.count if options.count > 1 else 8
    save(contact_sheet(pictures, captions, columns), options.out)
    print(options.out)
    if options.separate:
        for i, picture in enumerate(pictures):
            save(to_image(picture), options.out.with_stem(f"{options.out.stem}-{i}"))
    return 0
