"""The verbs that a user types. Each takes its own options; `flowbrush VERB --help` lists them."""

import contextlib
import errno
import inspect
import io
import signal
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from flowbrush.errors import UserError, nearest

Options = TypeVar("Options")

HELP = """\
flowbrush: train text-to-image models from scratch, and paint with them.

  flowbrush recipes                          what can be trained, with its cost and result
  flowbrush prepare emoji --to DIR           encode pictures and captions once, to train from DIR
  flowbrush train emoji                      train a recipe; the run goes to runs/emoji
  flowbrush train runs/emoji                 go on with a run, exactly where it stopped
  flowbrush sample runs/emoji "a fox" バナナ   paint prompts
  flowbrush evaluate runs/emoji              measure a run
  flowbrush import jit FILE --to runs/jit    make a run of published weights
  flowbrush export runs/jit --to diffusers DIR   make a folder that diffusers loads

flowbrush VERB --help lists a verb's options; flowbrush train RECIPE --help every choice of the
recipe as well."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Exit status: 0, 2 for a user's mistake, 128 + n when signal n stopped it."""
    verb, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("--help", "-h", "help"):
        print(HELP)
        return 0
    try:
        if verb not in VERBS:
            raise UserError(f"'{verb}' is not a verb ({', '.join(VERBS)}){nearest(verb, VERBS)}")
        return VERBS[verb](rest)
    except UserError as error:
        print(f"flowbrush: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        mend = "; free some, and run it again" if error.errno == errno.ENOSPC else ""
        place = error.filename or verb
        print(f"flowbrush: {place}: {error.strerror or error}{mend}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


# -- train


@dataclass(frozen=True)
class TrainOptions:
    """Where to train. Every other option is a choice of the recipe."""

    run: Path | None = None
    """folder of the run; runs/NAME if left out"""
    tiny: bool = False
    """every part small, its weights random, a drawn world: the recipe's whole way in a minute"""
    prepared: Path | None = None
    """folder that `flowbrush prepare` has filled, to train from instead of the recipe's source"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""


def train(arguments: list[str]) -> int:
    target, rest = _first(
        arguments, "train RECIPE|RUN [options]", "a recipe's name or a run's folder"
    )
    from flowbrush.autoencoding import AutoencoderExperiment, Experiment, load_experiment
    from flowbrush.experiment import ExperimentConfig, is_run
    from flowbrush.recipes import RECIPES, recipe
    from flowbrush.recipes.tiny import tiny

    if not target:
        print(f"usage: flowbrush train RECIPE|RUN [options]\n\nrecipes: {', '.join(RECIPES)}\n")
        print("flowbrush train RECIPE --help lists its options")
        return 0
    going_on = is_run(Path(target))
    begun = load_experiment(Path(target)) if going_on else recipe(target)
    if "--tiny" in rest and isinstance(begun, ExperimentConfig) and not going_on:
        begun = tiny(begun, Path("runs") / "tiny-models")

    @dataclass(frozen=True)
    class Train:
        options: Annotated[TrainOptions, tyro.conf.arg(name="")]
        config: Annotated[Experiment, tyro.conf.arg(name="")]

    chosen = _parse(Train, Train(TrainOptions(), begun), rest, f"flowbrush train {target}")
    run = chosen.options.run or (Path(target) if going_on else Path("runs") / begun.name)

    from flowbrush.data import PreparedConfig
    from flowbrush.processes import Processes, choose_device
    from flowbrush.train.autoencoder import train_autoencoder
    from flowbrush.train.loop import train as train_run

    changeable = ("watch.", "train.pictures", "source.path") if going_on else ("watch.",)
    processes = Processes(choose_device(chosen.options.device))
    if isinstance(chosen.config, AutoencoderExperiment):
        if chosen.options.prepared:
            raise UserError("--prepared: an autoencoder learns from pictures; leave it out")
        return train_autoencoder(chosen.config, run, processes, changeable)
    config = chosen.config
    if chosen.options.prepared:
        config = replace(config, source=PreparedConfig(path=chosen.options.prepared))
    return train_run(config, run, processes, changeable)


# -- prepare


def prepare(arguments: list[str]) -> int:
    target, rest = _first(arguments, "prepare RECIPE|RUN --to DIR [options]", "a recipe's name")
    from flowbrush.experiment import ExperimentConfig, is_run, load_config
    from flowbrush.prepare.prepare import PrepareConfig
    from flowbrush.prepare.prepare import prepare as prepare_all
    from flowbrush.recipes import recipe

    begun = load_config(Path(target)) if is_run(Path(target)) else recipe(target or "emoji")
    if not isinstance(begun, ExperimentConfig):
        raise UserError(f"prepare: {target} learns from pictures, and needs no preparing")

    @dataclass(frozen=True)
    class Prepare:
        options: Annotated[PrepareConfig, tyro.conf.arg(name="")]
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")]

    program = f"flowbrush prepare {target or 'RECIPE'}"
    chosen = _parse(Prepare, Prepare(PrepareConfig(), begun), rest, program)
    done, to = prepare_all(chosen.config, chosen.options), chosen.options.to
    print(
        f"{to}: {done.pictures:,} pictures encoded, {done.pictures / done.seconds:.1f} a second; "
        f"{done.size / 1e6:,.1f} MB"
    )
    made = done.manifest
    if made.complete:
        broken = f"; {made.broken:,} broken ones are listed in its records" if made.broken else ""
        print(f"{to}: complete, {sum(made.samples):,} pictures in {made.shards:,} shards{broken}")
        print(f"train with: flowbrush train {target} --prepared {to}")
    return 0


# -- sample


@dataclass(frozen=True)
class SampleOptions:
    """What to paint. How to paint is the run's own choice where it is left out."""

    out: Path = Path("painted.png")
    """the picture; several prompts, or several pictures of one, make a captioned sheet"""
    separate: bool = False
    """write each picture on its own as well, without a caption, as NAME-0.png, NAME-1.png, ..."""
    count: int = 1
    """pictures of each prompt"""
    seed: int = 0
    """the pictures take the seeds SEED, SEED + 1, ..."""
    weights: str = "ema"
    """ema (the first average), one of them by name such as ema_0.998, or model"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""


def sample(arguments: list[str]) -> int:
    run, rest = _first(arguments, 'sample RUN "PROMPT" ... [options]', "a run's folder")
    split = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    prompts, rest = rest[:split], rest[split:]
    from flowbrush.contact_sheet import contact_sheet, save, to_image
    from flowbrush.experiment import load_config
    from flowbrush.flow.sampling import SamplingConfig
    from flowbrush.text_to_image import TextToImage

    @dataclass(frozen=True)
    class Sample:
        options: Annotated[SampleOptions, tyro.conf.arg(name="")]
        sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")]

    own = load_config(Path(run)).sampling if run else SamplingConfig()
    chosen = _parse(
        Sample, Sample(SampleOptions(), own), rest, f"flowbrush sample {run or 'RUN'} PROMPT ..."
    )
    options = chosen.options
    if not prompts:
        raise UserError('sample: no prompt; write flowbrush sample RUN "a fox"')
    if options.count < 1:
        raise UserError(f"--count {options.count}: it must be 1 or more")
    _check_ending(options.out)
    painter = TextToImage.load(run, options.weights, options.device)
    captions = [prompt for prompt in prompts for _ in range(options.count)]
    seeds = list(range(options.seed, options.seed + len(captions)))
    pictures = painter.generate(captions, chosen.sampling, seeds)
    columns = options.count if options.count > 1 else 8
    save(contact_sheet(pictures, captions, columns), options.out)
    print(options.out)
    if options.separate:
        for i, picture in enumerate(pictures):
            save(to_image(picture), options.out.with_stem(f"{options.out.stem}-{i}"))
    return 0


# -- evaluate


@dataclass(frozen=True)
class EvaluateOptions:
    """What to measure."""

    limit: int = 400
    """examples, from the first on"""
    languages: tuple[str, ...] = ("en", "ja", "de", "fr", "es", "zh", "ko")
    """of the names that emoji are painted from"""
    weights: str = "ema"
    """ema (the first average), one of them by name such as ema_0.998, or model"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""


def evaluate(arguments: list[str]) -> int:
    run, rest = _first(arguments, "evaluate RUN [options]", "a run's folder")
    options = _parse(EvaluateOptions, EvaluateOptions(), rest, "flowbrush evaluate RUN")
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


# -- import


@dataclass(frozen=True)
class ImportOptions:
    """Where the run goes."""

    to: Path = Path("runs/imported")
    """folder of the new run"""


def import_weights(arguments: list[str]) -> int:
    family, rest = _first(arguments, "import FAMILY FILE --to RUN", "a family, such as jit,")
    path, rest = _first(rest, f"import {family} FILE --to RUN", "the file or folder of weights")
    from flowbrush.interchange.published import Choices
    from flowbrush.interchange.runs import import_run

    @dataclass(frozen=True)
    class Import:
        options: Annotated[ImportOptions, tyro.conf.arg(name="")]
        choices: Annotated[Choices, tyro.conf.arg(name="")]

    program = f"flowbrush import {family or 'FAMILY'} {path or 'FILE'}"
    chosen = _parse(Import, Import(ImportOptions(), Choices()), rest, program)
    to = chosen.options.to
    import_run(family, Path(path), to, chosen.choices)
    print(f"{to}: imported; paint with: flowbrush sample {to} ...")
    return 0


# -- export


@dataclass(frozen=True)
class ExportOptions:
    """What leaves, and where to."""

    to: tuple[Literal["diffusers"], Path] = ("diffusers", Path("exported"))
    """format and folder: --to diffusers DIR"""
    weights: str = "ema"
    """ema (the first average), one of them by name such as ema_0.998, or model"""


def export(arguments: list[str]) -> int:
    run, rest = _first(arguments, "export RUN --to diffusers DIR", "a run's folder")
    options = _parse(ExportOptions, ExportOptions(), rest, f"flowbrush export {run or 'RUN'}")
    from flowbrush.experiment import build_shapes
    from flowbrush.interchange.export import Leaving, export_run
    from flowbrush.text_to_image import TextToImage

    painter = TextToImage.load(run, options.weights, "cpu", frozen=False)
    shapes = build_shapes(painter.config, painter.space, painter.encoder)
    leaving = Leaving(painter.config, shapes, painter.denoiser.backbone, painter.encoder)
    folder = options.to[1]
    print(f"{export_run(leaving, folder)}\n{folder}: exported and checked; the lines above paint")
    return 0


# -- recipes


def recipes(arguments: list[str]) -> int:
    from flowbrush.recipes import RECIPES

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `flowbrush recipes | head` ends quietly
    for name, build in RECIPES.items():
        print(f"{name}\n{textwrap.indent(inspect.getdoc(build) or '', '    ')}\n")
    return 0


VERBS = {
    "train": train,
    "prepare": prepare,
    "sample": sample,
    "evaluate": evaluate,
    "recipes": recipes,
    "import": import_weights,
    "export": export,
}


def _first(arguments: list[str], usage: str, what: str) -> tuple[str, list[str]]:
    """The verb's own first word, empty where help is asked for instead, and the rest."""
    if arguments[:1] in (["--help"], ["-h"]):
        return "", arguments
    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"{usage.split()[0]}: {what} is missing; usage: flowbrush {usage}")
    return arguments[0], arguments[1:]


def _parse(kind: type[Options], default: Options, arguments: list[str], program: str) -> Options:
    """Options by tyro; what it refuses becomes one line."""
    said = io.StringIO()
    asked_help = {"--help", "-h"} & set(arguments)
    try:
        with contextlib.nullcontext() if asked_help else contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=arguments,
                default=default,
                prog=program,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as end:
        if asked_help or not end.code:
            raise
    raise UserError(_in_one_line(said.getvalue()))


def _in_one_line(boxed: str) -> str:
    """tyro's message without its frame, its title and its pointer to the help."""
    lines = [line.strip("│╭╮╰╯─ ") for line in boxed.splitlines()]
    _title, *inside = [line for line in lines if line.strip("-")]
    words = " ".join(inside)
    return words.split(" For full helptext")[0].replace(" Argument helptext:", "; it is")


def _check_ending(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--out {path}: end it in .png, .jpg or .webp")
