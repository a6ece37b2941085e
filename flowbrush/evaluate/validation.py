"""The validation loss: at fixed times, with fixed noise, on pictures that were held out.

    loss(t) = mean over pictures of (velocity said - velocity)^2,   t = 1/16, 3/16, ..., 15/16

Always of the velocity, whatever a run predicts or is trained on, and with noise that belongs to the
picture's place in the order: runs on the same pictures in the same space compare, whatever their
batch, objective or number of processes.

No image is measured twice where there are enough. One that comes several times all the same (in a
mixture, as copies in a data set) counts as one image, also in the interval.
"""

from dataclasses import dataclass
from hashlib import sha256

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from flowbrush.condition import joined
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.source import Source
from flowbrush.data.split import split
from flowbrush.evaluate.intervals import Measured, groups_of, of_mean
from flowbrush.flow.loss import flow_loss
from flowbrush.processes import autocast
from flowbrush.randomness import derive, normal
from flowbrush.text_to_image import TextToImage

TIMES = tuple((i + 0.5) / 8 for i in range(8))
SEED = 0  # of the order, the captions and the noise: one for all runs
TOGETHER = 32


@dataclass(frozen=True)
class ValidationLoss:
    """Of each example at each of TIMES. images: which image it shows, by number."""

    losses: Float64[Tensor, "n times"]
    images: Int64[Tensor, " n"]
    held_out: bool  # or pictures that the run has learned from

    @property
    def by_time(self) -> list[float]:
        return self.losses.mean(dim=0).tolist()

    @property
    def measured(self) -> Measured:
        which = "held-out" if self.held_out else "training"
        by = f"velocity at 8 times, {which} pictures"
        value = of_mean(self.losses.mean(dim=1), self.images)
        distinct = len(self.images.unique())
        wrong = int((~self.losses.isfinite().all(dim=1)).sum())
        note = (
            f"the loss of {wrong:,} of {len(self.losses):,} examples is not finite" if wrong else ""
        )
        return Measured("validation loss", *value, distinct, by, "lower", "none", note)


@torch.no_grad()
def validation_loss(
    painter: TextToImage, source: Source, pictures: int, held_out: bool
) -> ValidationLoss:
    """Of the network as it is, for `pictures` examples of `source`, or all where it has fewer.

    Raises UserError where none can be read.
    """
    config, device, found, images = painter.config, painter.device, [], list[bytes]()
    pictures = min(pictures, max(1, len(source)))
    was_training = painter.denoiser.training
    painter.denoiser.eval()
    order = BatchConfig(size=min(TOGETHER, pictures), captions=config.batch.captions)
    loader = batches(source, order, SEED, 0)
    for _ in range(-(-pictures // order.size)):
        batch = next(loader)
        images += [sha256(picture.numpy().tobytes()).digest() for picture in batch.pictures]
        keys = [derive(SEED, "posterior", place) for place in batch.places]
        data = painter.space.normalize(painter.space.compress(batch.pictures_on(device)), keys)
        keys = [derive(SEED, "validation noise", place) for place in batch.places]
        noise = config.flow.noise_scale * normal(keys, data.shape[1:], torch.device("cpu"))
        ready = batch.features
        condition = (joined(ready) if ready else painter.encoder(batch.captions)).to(device)
        with autocast(painter.dtype, device):
            found.append(
                torch.stack(
                    [
                        flow_loss(
                            painter.denoiser,
                            data,
                            noise.to(device),
                            torch.full((len(data),), time, device=device),
                            condition,
                            "velocity",
                        )
                        .double()
                        .cpu()
                        for time in TIMES
                    ],
                    dim=1,
                )
            )
    loader.close()
    painter.denoiser.train(was_training)
    return ValidationLoss(torch.cat(found)[:pictures], groups_of(images[:pictures]), held_out)


def loss_of_run(painter: TextToImage, pictures: int) -> ValidationLoss | None:
    """On the examples that a run holds out, or else on those that it learned from; None for 0."""
    if not pictures:
        return None
    config = painter.config
    source = config.source.build(config.size)
    if not config.held_out:
        return validation_loss(painter, source, pictures, held_out=False)
    return validation_loss(painter, split(source, config.held_out).held_out, pictures, True)
