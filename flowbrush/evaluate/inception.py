"""The Inception network of FID (Szegedy et al. 2015, the frozen graph of 2015-12-05).

It is InceptionV3 with 1008 classes, average pools that do not count their padding, and a max pool
in the last block. Weights are named as in pytorch-fid's file, which torch-fidelity shares.
"""

import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from flowbrush.errors import UserError
from flowbrush.evaluate.network_input import bicubic, in_batches, tensorflow_bilinear

ADDRESS = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
SIZE, WIDTH, CLASSES = 299, 2048, 1008

# legacy: as FID's own code (TensorFlow 1, (x - 128) / 128), ADM's, StyleGAN's and torch-fidelity's;
# pytorch-fid reads half a pixel aside. clean: as clean-fid (Parmar et al. 2022).
Resize = Literal["legacy", "clean"]

ONE, THREE, FIVE, ACROSS, DOWN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
Step = tuple[int, tuple[int, int]]  # channels out, kernel


@dataclass(frozen=True, kw_only=True)
class InceptionConfig:
    """FID's network: 2048 numbers after the last pool."""

    weights: str = ""  # pytorch-fid's .pth, or StyleGAN's TorchScript; empty = fetched
    resize: Resize = "legacy"  # clean wants the .pth

    def build(self, device: torch.device) -> "Inception":
        """Raises UserError where the weights cannot be had or are another network's."""
        if not self.weights:
            return Inception.of_weights(_fetched(), self.resize, device)
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise UserError(f"inception.weights: there is no file {path}; see {ADDRESS}")
        if _is_torchscript(path):
            if self.resize == "clean":
                raise UserError(
                    f"features.resize: {path.name} is TorchScript, which resizes by itself; "
                    f"clean wants {ADDRESS}"
                )
            return Inception.of_script(path, device)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of any kind: a broken file's is up to its reader
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(f"inception.weights: {path} cannot be read ({reason})") from None
        return Inception.of_weights(state, self.resize, device)


class Inception:
    """PictureFeatures. Their name tells the resizing: figures of the two do not compare."""

    width = WIDTH

    def __init__(
        self, network: Any, head: Float[Tensor, "1008 2048"], resize: Resize, device: torch.device
    ) -> None:
        """network: bytes of any size -> features."""
        self.name = f"Inception 2015, {resize} resizing"
        self._network, self._head, self._device = network, head.float().cpu(), device

    @classmethod
    def of_weights(cls, state: Any, resize: Resize, device: torch.device) -> "Inception":
        """state: a state dict, or whatever a file held. Raises UserError for another network's."""
        network: Any = InceptionNetwork()
        if wrong := _misfit(network, state):
            raise UserError(f"inception.weights: not FID's Inception ({wrong}); see {ADDRESS}")
        network.load_state_dict(state, strict=False)  # num_batches_tracked may be missing
        network.to(memory_format=torch.channels_last)  # a third faster on the CPU
        network = network.to(device).eval().requires_grad_(False)

        def run(pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b 2048"]:
            x = tensorflow_bilinear if resize == "legacy" else bicubic
            return network((x(pictures, SIZE).clamp(0, 255) - 128) / 128)

        return cls(run, network.fc.weight, resize, device)

    @classmethod
    def of_script(cls, path: Path, device: torch.device) -> "Inception":
        """StyleGAN's `inception-2015-12-05.pt`. Raises UserError for another script."""
        try:
            script = torch.jit.load(str(path), map_location=device).eval()  # nothing is unpickled
            heads = [p for p in script.state_dict().values() if p.shape == (CLASSES, WIDTH)]
            blank = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8, device=device)
            with torch.no_grad():
                fits = script(blank, return_features=True).shape == (1, WIDTH)
        except (RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
            raise UserError(f"inception.weights: {path} cannot be used ({reason})") from None
        if not fits or len(heads) != 1:
            raise UserError(f"inception.weights: {path} is not FID's Inception; see {ADDRESS}")
        return cls(lambda x: script(x, return_features=True), heads[0], "legacy", device)

    def __call__(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        return in_batches(self._network, pictures, self.width, self._device)

    def logits(self, features: Float[Tensor, "b 2048"]) -> Float[Tensor, "b 1008"]:
        """For the Inception score; without the bias, as its own code has them."""
        return features @ self._head.T


class InceptionNetwork(nn.Module):
    """Pixels of -1 ... 1, 299 x 299 -> what the last pool leaves. `fc` is for whoever wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _conv(3, 32, THREE, stride=2, padded=False)
        self.Conv2d_2a_3x3 = _conv(32, 32, THREE, padded=False)
        self.Conv2d_2b_3x3 = _conv(32, 64, THREE)
        self.Conv2d_3b_1x1 = _conv(64, 80, ONE)
        self.Conv2d_4a_3x3 = _conv(80, 192, THREE, padded=False)
        self.Mixed_5b = _inception_a(192, 32)
        self.Mixed_5c = _inception_a(256, 64)
        self.Mixed_5d = _inception_a(288, 64)
        self.Mixed_6a = Shrinking(
            288,
            branch3x3=((384, THREE),),
            branch3x3dbl=((64, ONE), (96, THREE), (96, THREE)),
        )
        self.Mixed_6b = _inception_c(128)
        self.Mixed_6c = _inception_c(160)
        self.Mixed_6d = _inception_c(160)
        self.Mixed_6e = _inception_c(192)
        self.Mixed_7a = Shrinking(
            768,
            branch3x3=((192, ONE), (320, THREE)),
            branch7x7x3=((192, ONE), (192, ACROSS), (192, DOWN), (192, THREE)),
        )
        self.Mixed_7b = Forked(1280, "average")
        self.Mixed_7c = Forked(2048, "max")
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Float[Tensor, "b 3 299 299"]) -> Float[Tensor, "b 2048"]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))


def _conv(
    channels: int, out: int, kernel: tuple[int, int], stride: int = 1, padded: bool = True
) -> nn.Sequential:
    around = (kernel[0] // 2, kernel[1] // 2) if padded else 0
    conv = nn.Conv2d(channels, out, kernel, stride, around, bias=False)
    bn = nn.BatchNorm2d(out, eps=1e-3)
    return nn.Sequential(OrderedDict(conv=conv, bn=bn, relu=nn.ReLU()))


def _average_pool(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Side(nn.Module):
    """Chains of convolutions side by side, the last after an average pool."""

    def __init__(self, channels: int, **chains: tuple[Step, ...]) -> None:
        super().__init__()
        self._chains = [_chain(self, name, channels, steps) for name, steps in chains.items()]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        *before, last = self._chains
        return torch.cat(
            [*(_run(self, c, x) for c in before), _run(self, last, _average_pool(x))], 1
        )


class Shrinking(nn.Module):
    """Chains whose last convolution halves the picture, and a max pool that does."""

    def __init__(self, channels: int, **chains: tuple[Step, ...]) -> None:
        super().__init__()
        self._chains = [
            _chain(self, name, channels, steps, stride=2) for name, steps in chains.items()
        ]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return torch.cat([*(_run(self, c, x) for c in self._chains), max_pool2d(x, 3, stride=2)], 1)


def _chain(
    block: nn.Module, name: str, channels: int, steps: tuple[Step, ...], stride: int = 1
) -> list[str]:
    """Puts the convolutions into the block, the last with `stride`; returns their names."""
    names = [f"{name}_{i}" for i in range(1, len(steps) + 1)] if len(steps) > 1 else [name]
    for part, (out, kernel) in zip(names, steps, strict=True):
        shrinks = stride > 1 and part == names[-1]
        conv = _conv(channels, out, kernel, stride if shrinks else 1, padded=not shrinks)
        block.add_module(part, conv)
        channels = out
    return names


def _run(block: nn.Module, names: list[str], x: Tensor) -> Tensor:
    for name in names:
        x = block.get_submodule(name)(x)
    return x


def _inception_a(channels: int, pool: int) -> Side:
    return Side(
        channels,
        branch1x1=((64, ONE),),
        branch5x5=((48, ONE), (64, FIVE)),
        branch3x3dbl=((64, ONE), (96, THREE), (96, THREE)),
        branch_pool=((pool, ONE),),
    )


def _inception_c(inner: int) -> Side:
    twice = (inner, DOWN), (inner, ACROSS)
    return Side(
        768,
        branch1x1=((192, ONE),),
        branch7x7=((inner, ONE), (inner, ACROSS), (192, DOWN)),
        branch7x7dbl=((inner, ONE), *twice, (inner, DOWN), (192, ACROSS)),
        branch_pool=((192, ONE),),
    )


class Forked(nn.Module):
    """The last blocks, in which two chains end in a (1, 3) beside a (3, 1)."""

    def __init__(self, channels: int, pool: Literal["average", "max"]) -> None:
        super().__init__()
        self._pool = pool
        self.branch1x1 = _conv(channels, 320, ONE)
        self.branch3x3_1 = _conv(channels, 384, ONE)
        self.branch3x3_2a = _conv(384, 384, (1, 3))
        self.branch3x3_2b = _conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = _conv(channels, 448, ONE)
        self.branch3x3dbl_2 = _conv(448, 384, THREE)
        self.branch3x3dbl_3a = _conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = _conv(384, 384, (3, 1))
        self.branch_pool = _conv(channels, 192, ONE)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 2048 h w"]:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = _average_pool(x) if self._pool == "average" else max_pool2d(x, 3, 1, padding=1)
        forks = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        forks += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(pooled)], dim=1)


def _misfit(network: nn.Module, state: Any) -> str:
    """How a file's content differs from the network's weights, or ""."""
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        return "no state dict"
    counted = "num_batches_tracked"
    own = {k: v.shape for k, v in network.state_dict().items() if not k.endswith(counted)}
    other = {k: v.shape for k, v in state.items() if not k.endswith(counted)}
    for name in own:
        if name not in other:
            return f"it lacks {name}"
        if own[name] != other[name]:
            return f"{name} is {tuple(other[name])}, not {tuple(own[name])}"
    return next((f"it has {name} besides" for name in other if name not in own), "")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _fetched() -> dict[str, Tensor]:
    """Out of torch.hub's folder where it is there already."""
    try:
        return torch.hub.load_state_dict_from_url(
            ADDRESS, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"inception.weights: the Inception network cannot be fetched ({error}); download "
            f"{ADDRESS} elsewhere and give the file"
        ) from None
