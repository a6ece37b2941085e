"""What a backbone must know of the world around it: the sizes of what goes in and comes out."""

from dataclasses import dataclass

from flowbrush.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ConditionShapes:
    """Sizes of a `Condition`'s fields; `None` where a field is not used."""

    labels: int | None = None  # number of classes; the null label is this number
    text_width: int | None = None
    text_tokens: int | None = None  # the most tokens that one caption can have
    pooled_width: int | None = None


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes of `x_t` and of its condition."""

    channels: int
    height: int
    width: int
    condition: ConditionShapes = ConditionShapes()

    def check_patch(self, patch: int) -> None:
        """Raises UserError where patches of that size do not tile x_t."""
        if self.height % patch or self.width % patch:
            size = f"{self.height} x {self.width}"
            raise UserError(f"backbone: patch {patch} does not divide pictures of {size}")
