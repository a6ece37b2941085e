"""`flowbrush evaluate`."""

from dataclasses import dataclass, replace
from pathlib import Path

from flowbrush.cli.options import first_word, parse


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
    run, rest = first_word(arguments, "evaluate RUN [options]", "a run's folder")
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
