"""A small network that reads handwritten digits, to judge painted ones by.

It is as good as its own accuracy on digits it has not seen, which stands beside whatever is
measured with it.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d, relu

from flowbrush.data.idx import Idx
from flowbrush.data.source import stacked

HELD_OUT = 1_000  # digits that its accuracy is measured on


class DigitReader(nn.Module):
    """28 x 28 pixels -> 128 features -> how much it looks like each of the ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 64, 5, padding=2)
        self.hidden, self.output = nn.Linear(64 * 7 * 7, 128), nn.Linear(128, 10)
        self.dropout = nn.Dropout(0.3)

    def features(self, pictures: UInt8[Tensor, "b 3 28 28"]) -> Float[Tensor, "b 128"]:
        x = pictures.float().mean(dim=1, keepdim=True) / 255
        x = max_pool2d(relu(self.conv1(x)), 2)
        x = max_pool2d(relu(self.conv2(x)), 2)
        return relu(self.hidden(x.flatten(1)))

    def forward(self, pictures: UInt8[Tensor, "b 3 28 28"]) -> Float[Tensor, "b 10"]:
        return self.output(self.dropout(self.features(pictures)))

    @torch.inference_mode()
    def read(self, pictures: UInt8[Tensor, "b 3 28 28"]) -> Int[Tensor, " b"]:
        """The digit that each picture looks like most."""
        return torch.cat([self(part).argmax(dim=1) for part in pictures.split(500)])


class Trained(NamedTuple):
    """A reader, and the share that it reads right of digits it has not seen."""

    reader: DigitReader
    accuracy: float


def train_reader(source: Idx, epochs: int = 8, seed: int = 0) -> Trained:
    """A reader that has learned all digits but HELD_OUT, each moved about by up to two pixels."""
    pictures = stacked([source[i].picture for i in range(len(source))])
    labels = torch.from_numpy(source.labels).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader, mixed = DigitReader(), torch.randperm(len(labels))
        held_out, learned = mixed[:HELD_OUT], mixed[HELD_OUT:]
        steps = epochs * -(-len(learned) // 64)
        optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for _ in range(epochs):
            for part in learned[torch.randperm(len(learned))].split(64):
                loss = cross_entropy(reader(moved(pictures[part])), labels[part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    reader.eval()
    right = reader.read(pictures[held_out]) == labels[held_out]
    return Trained(reader, float(right.double().mean()))


def moved(pictures: UInt8[Tensor, "b 3 28 28"]) -> UInt8[Tensor, "b 3 28 28"]:
    """All of them moved together by up to two pixels each way: their margins are empty."""
    down, right = torch.randint(-2, 3, (2,)).tolist()
    return pictures.roll((down, right), dims=(2, 3))
