"""Recipes: functions that return an ExperimentConfig. Choices, no code."""

from collections.abc import Callable

from flowbrush.errors import UserError, nearest
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes.emoji import emoji, emoji_all
from flowbrush.recipes.folder import folder
from flowbrush.recipes.mnist import mnist
from flowbrush.recipes.shapes import shapes

RECIPES: dict[str, Callable[[], ExperimentConfig]] = {
    "emoji": emoji,
    "emoji-all": emoji_all,
    "shapes": shapes,
    "mnist": mnist,
    "folder": folder,
}


def recipe(name: str) -> ExperimentConfig:
    """The config of that name. Raises UserError, with the nearest name, where there is none."""
    if name not in RECIPES:
        raise UserError(
            f"'{name}' is neither a recipe ({', '.join(RECIPES)}) nor a run's folder{nearest(name, RECIPES)}"
        )
    return RECIPES[name]()
