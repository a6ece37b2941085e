"""Conditions that were made beforehand: training and previews without a text model in memory."""

from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor

from flowbrush.condition import Condition, joined
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes


class PreparedText:
    """A TextEncoder of the captions in `known`, batches of one each. Its parts are not apart."""

    parts, cut = 1, 0

    def __init__(
        self, known: Mapping[str, Condition], null: Condition, shapes: ConditionShapes
    ) -> None:
        self._known, self._null, self._shapes = known, null, shapes

    @property
    def shapes(self) -> ConditionShapes:
        return self._shapes

    @property
    def null(self) -> Condition:
        return self._null

    def __call__(
        self, captions: list[str], silent: Bool[Tensor, "b parts"] | None = None
    ) -> Condition:
        """Raises UserError for a caption that is not known."""
        rows = self.encode_many(captions, len(captions))
        if silent is not None:
            rows = [self._null if of else row for row, of in zip(rows, silent[:, 0], strict=True)]
        return joined(rows)

    def encode_many(self, captions: list[str], batch: int) -> list[Condition]:
        """Raises UserError for a caption that is not known."""
        for caption in captions:
            if caption not in self._known:
                raise UserError(
                    f"'{caption}' is not among the prepared prompts; add it to watch.prompts, and "
                    "run the same flowbrush prepare with it again"
                )
        return [self._known[caption] for caption in captions]
