"""What is measured while a run goes on, of the weights as they are at that moment."""

import time

from flowbrush.data import PreparedConfig
from flowbrush.data.mixture import configs_of
from flowbrush.data.source import Source
from flowbrush.errors import UserError
from flowbrush.evaluate.asked import of_run
from flowbrush.evaluate.intervals import Measured
from flowbrush.evaluate.measure import by_source
from flowbrush.evaluate.record import Evaluation, evaluation
from flowbrush.evaluate.validation import validation_loss
from flowbrush.experiment import ExperimentConfig
from flowbrush.text_to_image import TextToImage


class Watched:
    """The examples that are looked at again and again: held out, or else learned from."""

    def __init__(self, config: ExperimentConfig, source: Source, held_out: Source | None) -> None:
        """Raises UserError where the examples cannot be read, or painting needs a text model."""
        stored = any(isinstance(part, PreparedConfig) for part in configs_of(config.source))
        if config.evaluate.painted and stored:
            raise UserError(
                "evaluate.painted: training from prepared shards has no text model in memory; "
                "--evaluate.painted 0 leaves the validation loss"
            )
        self._config, self._held_out = config.evaluate, held_out is not None
        self._source = source if held_out is None else held_out
        self._asked = of_run(config, self._config.painted) if self._config.painted else None

    def evaluation(self, painter: TextToImage, seen: int) -> Evaluation:
        """The validation loss, and what the source can check of painted captions."""
        measured, began = list[Measured](), time.perf_counter()
        if self._asked:
            pictures = painter.generate(self._asked.captions)
            measured = by_source(self._asked, [pictures])
        by_time: tuple[float, ...] = ()
        if self._config.validation:
            loss = validation_loss(painter, self._source, self._config.validation, self._held_out)
            measured.append(loss.measured)
            by_time = tuple(loss.by_time)
        config, seconds = painter.config, {"evaluation": time.perf_counter() - began}
        return evaluation(
            seen,
            config.train.first_average,
            config.sampling,
            measured,
            validation=by_time,
            seconds=seconds,
        )
