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

    def check_one_vector(self, network: str, pooled_text: bool) -> None:
        """For a network of labels, or instead of a text's pooled vector.

        Raises UserError where a text comes unasked, or without such a vector.
        """
        given = self.condition
        if pooled_text and given.pooled_width is None:
            raise UserError(
                "backbone: pooled_text wants a text encoder with a pooled vector; leave it off for "
                "labels"
            )
        if not pooled_text and (given.text_width or given.pooled_width):
            raise UserError(
                f"backbone: {network} takes class labels, not text; use --backbone.pooled-text for "
                "its pooled vector, JiT for its tokens, or --text of labels"
            )
