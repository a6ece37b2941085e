from dataclasses import replace

import pytest
import torch

from flowbrush.autoencoding import AutoencoderExperiment
from flowbrush.errors import UserError
from flowbrush.recipes import RECIPES, recipe
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.spaces import PixelConfig
from flowbrush.text import LabelsConfig


@pytest.mark.parametrize("name", RECIPES)
def test_every_network_is_built_on_the_meta_device(name: str) -> None:
    config = recipe(name)
    if isinstance(config, AutoencoderExperiment):
        with torch.device("meta"):
            autoencoder = config.autoencoder.build()
        assert sum(weight.numel() for weight in autoencoder.parameters()) > 100_000
        return
    given = ConditionShapes(labels=1000)
    if not isinstance(config.text, LabelsConfig):
        given = ConditionShapes(text_width=512, text_tokens=1, pooled_width=512)
    c, side = (3, config.size) if config.space == PixelConfig() else (4, config.size // 8)
    shapes = Shapes(channels=c, height=side, width=side, condition=given)
    with torch.device("meta"):
        network = config.backbone.build(shapes)
    assert sum(weight.numel() for weight in network.parameters()) > 100_000


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_its_source_cost_and_result(name: str) -> None:
    said = RECIPES[name].__doc__ or ""
    assert all(word in said for word in ("Source:", "Cost:", "Result:"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_called_by_its_name(name: str) -> None:
    assert recipe(name).name == name


def test_the_batch_and_the_parts_that_it_is_computed_in_agree() -> None:
    with pytest.raises(UserError, match="3 parts do not divide a batch of 64"):
        replace(recipe("emoji"), train=replace(recipe("emoji").train, accumulate=3))
