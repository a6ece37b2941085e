"""A painter that draws what it is asked, so that what is measured of it is known beforehand."""

import torch
from torch import Tensor

from flowbrush.data import ShapesWorldConfig
from flowbrush.text_to_image import TextToImage

SOURCE = ShapesWorldConfig(scenes=60).build(32)


class Draughtsman(TextToImage):
    """Draws the scene of a caption; whoever's seed is a multiple of `wrong` gets a grey picture.

    `batches` are the sizes of what it was asked for.
    """

    def __init__(self, wrong: int = 0) -> None:
        self.wrong, self.weights, self.seen = wrong, "ema_0.9", 640
        self.batches: list[int] = []
        self._known = {c: SOURCE[i].picture for i in range(60) for c in SOURCE[i].captions.values()}

    def generate(self, prompts, sampling=None, seeds=None, batch=64) -> Tensor:
        seeds = range(len(prompts)) if seeds is None else seeds
        self.batches.append(len(prompts))
        drawn = [torch.tensor(self._known[prompt]) for prompt in prompts]
        for i, seed in enumerate(seeds):
            if self.wrong and seed % self.wrong == 0:
                drawn[i] = torch.full_like(drawn[i], 128)
        return torch.stack(drawn).permute(0, 3, 1, 2)
