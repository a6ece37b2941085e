"""Recipes for large machines go their whole way here, small."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowbrush.backbones import JiTConfig
from flowbrush.processes import Processes
from flowbrush.recipes import recipe
from flowbrush.recipes.tiny import tiny
from flowbrush.spaces import PixelConfig
from flowbrush.text_to_image import TextToImage
from flowbrush.train.loop import train

KINDS = [
    "coyo",
    "coyo-t5",
    "coyo-clip-t5",
    "jax-flow-text",
    "jax-flow-flux",
    "jaxfm-stage2",
    "jit-b16-text",
]
LABELS = ["jit-h32", "sit-b2", "jax-flow-debug", "jaxfm-stage1"]


@pytest.mark.parametrize("name", [*KINDS, *LABELS])
def test_a_recipe_trains_and_paints_small(name: str, tmp_path: Path) -> None:
    config = tiny(recipe(name), tmp_path / "models")
    config = replace(config, train=replace(config.train, pictures=16))
    assert train(config, tmp_path / "run", Processes(torch.device("cpu"))) == 0
    assert len(list((tmp_path / "run" / "previews").iterdir())) == 1
    prompt = "a large red circle" if name in KINDS else ""
    painter = TextToImage.load(tmp_path / "run", device="cpu")
    prompt = prompt or painter.config.text.names[3]  # type: ignore[union-attr]
    assert painter.generate([prompt]).shape == (1, 3, 32, 32)


def test_it_stays_the_recipe_in_kind() -> None:
    from tempfile import TemporaryDirectory

    for name in (*KINDS, *LABELS):
        large = recipe(name)
        with TemporaryDirectory() as models:
            small = tiny(large, Path(models))
        assert type(small.backbone) is type(large.backbone)
        assert type(small.space) is type(large.space)
        assert type(small.text) is type(large.text)
        assert small.flow == large.flow
        assert isinstance(small.backbone, JiTConfig) == isinstance(small.space, PixelConfig)
