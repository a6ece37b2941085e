"""`flowbrush evaluate`: what a run paints, measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from flowbrush.cli.options import Weights, first_word, parse
from flowbrush.cli.report import report
from flowbrush.cli.statistics import latents, reference
from flowbrush.errors import UserError

SUBJECTS: dict[str, Callable[[list[str]], int]] = {
    "latents": latents,
    "reference": reference,
    "report": report,
}


@dataclass(frozen=True)
class EvaluateOptions:
    """What is painted and measured. How it is painted is the run's own choice where left out."""

    limit: int = 400
    """examples whose captions are painted, evenly over the source; 0 = all"""
    kinds: tuple[str, ...] = ()
    """of captions, such as en ja (of emoji any language); empty = what the run learned from"""
    features: tuple[Literal["efficientnet", "inception", "clip", "dinov2"], ...] = ()
    """of pictures: efficientnet (offline: KID, probe score), inception (FID, KID, IS, precision,
    recall), clip (CMMD, CLIP score), dinov2 (FD-DINOv2, KID, precision, recall)"""
    reference: Path | None = None
    """statistics of real pictures in an .npz; left out: the examples' own pictures"""
    validation: int = 256
    """images of the validation loss, each once, at most all that are held out; 0 = none"""
    seed: int = 0
    """picture i is painted with the seed SEED + i"""
    batch: int = 64
    """pictures painted together; they are the same in any batch"""
    weights: Weights = "ema"
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""


def evaluate(arguments: list[str]) -> int:
    usage = "evaluate RUN|" + "|".join(SUBJECTS) + " [options]"
    run, rest = first_word(arguments, usage, "a run's folder")
    if run in SUBJECTS:
        return SUBJECTS[run](rest)
    from tqdm import tqdm

    from flowbrush import checkpoint
    from flowbrush.evaluate.asked import of_run
    from flowbrush.evaluate.features import FeaturesModels
    from flowbrush.evaluate.measure import comparison
    from flowbrush.evaluate.record import table
    from flowbrush.evaluate.sweep import SHEET_FILE, Measuring, SweepConfig, sweep
    from flowbrush.evaluate.validation import loss_of_run
    from flowbrush.experiment import CHECKPOINT_FOLDER, load_config
    from flowbrush.flow.sampling import SamplingConfig
    from flowbrush.processes import joined_processes
    from flowbrush.text_to_image import TextToImage

    @dataclass(frozen=True)
    class Evaluate:
        options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]
        sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")]
        sweep: SweepConfig = SweepConfig()
        models: Annotated[FeaturesModels, tyro.conf.arg(name="")] = FeaturesModels()

    own = load_config(Path(run)) if run else None
    given = Evaluate(EvaluateOptions(), own.sampling if own else SamplingConfig())
    chosen = parse(Evaluate, given, rest, f"flowbrush {usage}")
    assert own is not None  # or it asked for help
    options, folder = chosen.options, Path(run)
    if options.batch < 1 or min(options.limit, options.validation) < 0:
        raise UserError("evaluate: batch must be 1 or more, limit and validation 0 or more")
    if options.reference and not options.features:
        raise UserError(
            f"--reference {options.reference}: by which features? Add --features, as the reference "
            "was made with"
        )
    ways = chosen.sweep.ways(options.weights, chosen.sampling)
    if own.stages:
        own = own.learned(int(checkpoint.newest(folder / CHECKPOINT_FOLDER, print).name))
    what = of_run(own, options.limit, options.kinds)
    with joined_processes(options.device) as processes:
        names = options.features if processes.is_main else ()
        by = [
            comparison(chosen.models.named(name), options.reference, what, processes.device)
            for name in names
        ]
        measuring = Measuring(
            what=what,
            comparisons=by,
            batch=options.batch,
            seed=options.seed,
            validation=lambda painter: loss_of_run(painter, options.validation),
        )

        def load(weights: str) -> TextToImage:
            return TextToImage.load(run, weights, str(processes.device))

        total = len(what.captions) * len(ways)
        quiet = not processes.is_main
        with tqdm(total=total, unit="pictures", disable=quiet, delay=2) as bar:
            axes = chosen.sweep.axes
            found = sweep(load, folder, axes, ways, measuring, processes, bar.update)
        if not processes.is_main:
            return 0
    for way, one in found:
        print("\n".join(table(way.choices, one)))
    print(folder / SHEET_FILE)
    return 0
