"""Which group a picture belongs to, as a judge of painted ones: a line on EfficientNet's features.

    group = argmax (f(x) W)        W of ridge regression from features to groups, on real pictures

Each real picture is learned twice, as it is and with grain: what is painted has some, which a
network of photos takes for a texture otherwise. The judge is as good as its own accuracy on
pictures that it was not fitted on, which stands beside whatever is measured with it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import one_hot

from flowbrush.data.source import Source, stacked
from flowbrush.evaluate.efficientnet import EfficientNetConfig
from flowbrush.evaluate.features import PictureFeatures
from flowbrush.evaluate.probe import RIDGE, Line, fitted
from flowbrush.evaluate.spread import spread

FOLDS = 10
GRAIN = 25.0  # standard deviation of the noise, of 255


class GroupReader(NamedTuple):
    """groups: of the real pictures; read: what each of them was taken for by a line that was
    fitted on the other nine tenths of them."""

    features: PictureFeatures
    line: Line
    groups: Int[Tensor, " n"]
    read: Int[Tensor, " n"]

    @property
    def accuracy(self) -> float:
        """On real pictures that it was not fitted on."""
        return float((self.read == self.groups).double().mean())

    def __call__(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Int[Tensor, " b"]:
        """The group that each looks like most."""
        return _read(self.line, self.features(pictures))


def group_reader(source: Source, most: int = 1_000) -> GroupReader:
    """Of a source whose `truth` is the group's number; from about `most` pictures evenly over it.

    Raises UserError where a package is missing.
    """
    features = EfficientNetConfig().build(torch.device("cpu"))
    examples = [source[i] for i in spread(most, len(source))]
    groups = torch.tensor([example.truth for example in examples])
    pictures = stacked([example.picture for example in examples])
    x = features(pictures)
    twice = torch.cat([x, features(grainy(pictures))])
    y = one_hot(groups, len(source.classes)).float().repeat(2, 1)
    fold, read = _fold(groups), torch.empty_like(groups)
    for i in range(FOLDS):
        line = fitted(twice[(fold != i).repeat(2)], y[(fold != i).repeat(2)], RIDGE)
        read[fold == i] = _read(line, x[fold == i])
    return GroupReader(features, fitted(twice, y, RIDGE), groups, read)


def grainy(pictures: UInt8[Tensor, "b 3 H W"]) -> UInt8[Tensor, "b 3 H W"]:
    """With noise in every pixel, always the same."""
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    return (pictures + GRAIN * noise).clamp(0, 255).to(torch.uint8)


def _fold(groups: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Each group dealt out evenly, one picture after the other."""
    among = one_hot(groups).cumsum(dim=0).gather(1, groups[:, None])[:, 0]
    return among % FOLDS


def _read(line: Line, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    return (line.moved(x) + line.y_mean).argmax(dim=1)


def counted(
    asked: Sequence[int], read: Int[Tensor, " n"], groups: int
) -> Int[Tensor, "groups groups"]:
    """How often group `row` was asked for and `column` was read."""
    table = torch.zeros(groups, groups, dtype=torch.long)
    return table.index_put((torch.tensor(asked), read), torch.ones_like(read), accumulate=True)
