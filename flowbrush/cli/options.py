"""Words and options of a command line, and one line for what is wrong with them."""

import contextlib
import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro

from flowbrush.errors import UserError

if TYPE_CHECKING:
    from flowbrush.experiment import ExperimentConfig

Options = TypeVar("Options")
TINY_MODELS = Path("runs") / "tiny-models"
TINY = "every part small, its weights random, a drawn world: the recipe's whole way in a minute"
Tiny = Annotated[bool, tyro.conf.arg(help=TINY)]
WEIGHTS = """ema (the first average), one of them by name such as ema_0.998, power_X of any relative
length X where the run keeps two such, or model"""
Weights = Annotated[str, tyro.conf.arg(help=WEIGHTS)]


def first_word(arguments: list[str], usage: str, what: str) -> tuple[str, list[str]]:
    """The verb's own first word, empty where help is asked for instead, and the rest."""
    if arguments[:1] in (["--help"], ["-h"]):
        return "", arguments
    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"{usage.split()[0]}: {what} is missing; usage: flowbrush {usage}")
    return arguments[0], arguments[1:]


def prompts_first(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The prompts, and the options after them. Behind `--` everything is a prompt."""
    behind: list[str] = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, behind = arguments[:cut], arguments[cut + 1 :]
    options = (i for i, word in enumerate(arguments) if re.fullmatch(r"-[A-Za-z-]\S*|--.*", word))
    first = next(options, len(arguments))
    return arguments[:first] + behind, arguments[first:]


def experiment(target: str, otherwise: str, small: bool, verb: str) -> "ExperimentConfig":
    """The config of a run or a recipe that paints; of `otherwise`, a recipe, where help is asked.

    small: every part of it tiny. Raises UserError where there is no such thing, or it is an
    autoencoder's.
    """
    from flowbrush.experiment import ExperimentConfig, is_run, load_config
    from flowbrush.recipes import recipe
    from flowbrush.recipes.tiny import tiny

    if target and is_run(Path(target)):
        return load_config(Path(target))
    found = recipe(target or otherwise)
    if not isinstance(found, ExperimentConfig):
        raise UserError(f"{verb}: {target} is an autoencoder's recipe; name one that paints")
    return tiny(found, TINY_MODELS) if small else found


class _FiniteFloats(tyro.constructors.ConstructorRegistry):
    """How tyro reads every float, also in a tuple or beside None: nan and infinity are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = ""  # the word that is no finite number
        self.primitive_rule(self._rule)

    def _rule(
        self, info: tyro.constructors.PrimitiveTypeInfo
    ) -> tyro.constructors.PrimitiveConstructorSpec[float] | None:
        if info.type is not float:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT",
            instance_from_str=lambda words: self._finite(words[0]),
            is_instance=lambda value: isinstance(value, float | int),
            str_from_instance=lambda value: [str(value)],
        )

    def _finite(self, word: str) -> float:
        if not math.isfinite(number := float(word)):
            self.refused = word
            raise ValueError("not a finite number")
        return number


def parse(kind: type[Options], default: Options, arguments: list[str], program: str) -> Options:
    """Options by tyro; what it refuses becomes one line."""
    said, floats = io.StringIO(), _FiniteFloats()
    asked_help = {"--help", "-h"} & set(arguments)
    try:
        with contextlib.nullcontext() if asked_help else contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=arguments,
                default=default,
                prog=program,
                config=(tyro.conf.AvoidSubcommands,),
                registry=floats,
            )
    except SystemExit as end:
        if asked_help or not end.code:
            raise
    line = _in_one_line(said.getvalue())
    if floats.refused and (option := re.match(r"Error parsing (--\S+):", line)):
        raise UserError(f"{option[1]}: {floats.refused} is not a finite number")
    raise UserError(line)


def _in_one_line(boxed: str) -> str:
    """tyro's message without its frame, its title and its pointer to the help."""
    lines = [line.strip("│╭╮╰╯─ ") for line in boxed.splitlines()]
    _title, *inside = [line for line in lines if line.strip("-")]
    words = " ".join(inside)
    return words.split(" For full helptext")[0].replace(" Argument helptext:", "; it is")


def check_ending(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--out {path}: end it in .png, .jpg or .webp")
