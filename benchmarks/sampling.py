"""The demo's pictures, as shipped and by the plain loop: each alone, two fp32 passes a step.

    .venv/bin/python benchmarks/sampling.py runs/emoji

Both paint the same names from the same seeds, in turns of 40: the machine's moods meet both.
"""

import sys
import time
from dataclasses import replace

import torch

from flowbrush import TextToImage
from flowbrush.flow.denoiser import Denoiser
from flowbrush.randomness import derive, normal

TURN = 40


@torch.inference_mode()
def plain(painter: TextToImage, caption: str, seed: int) -> torch.Tensor:
    """Heun's method by hand, guidance everywhere, the two passes apart, fp32."""
    config, cpu = painter.config.sampling, torch.device("cpu")
    denoiser = Denoiser(painter.denoiser.backbone, "data", 0.0).eval()
    x = normal([derive(seed, "picture", 0)], painter.space.shape(painter.config.size), cpu)
    given, null = painter.encoder([caption]), painter.encoder.null

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        times = torch.full((1,), t)
        unguided = denoiser(x, times, null)
        return unguided + config.scale * (denoiser(x, times, given) - unguided)

    dt = 1 / config.steps
    for i in range(config.steps - 1):
        k1 = velocity(x, i * dt)
        k2 = velocity(x + dt * k1, (i + 1) * dt)
        x = x + dt / 2 * (k1 + k2)
    return painter.space.decode(x + dt * velocity(x, 1 - dt))


def main() -> None:
    painter = TextToImage.load(sys.argv[1])
    source = painter.config.source.build(painter.config.size)
    names = [source[i].captions["en"] for i in range(len(source))]
    shipped_seconds = plain_seconds = 0.0
    ratios = []
    shipped, by_hand = [], []
    painter.generate(names[:2])  # warm
    for start in range(0, len(names), TURN):
        turn, seeds = names[start : start + TURN], range(start, start + TURN)
        began = time.perf_counter()
        shipped.append(painter.generate(turn, seeds=seeds))
        between = time.perf_counter()
        by_hand += [plain(painter, name, seed) for name, seed in zip(turn, seeds, strict=False)]
        ended = time.perf_counter()
        shipped_seconds += between - began
        plain_seconds += ended - between
        ratios.append((ended - between) / (between - began))
    everywhere = replace(painter.config.sampling, interval=(0.0, 1.0))
    same = painter.generate(names[:TURN], everywhere, range(TURN)).float()
    apart = (same - torch.cat(by_hand[:TURN]).float()).abs().mean()
    print(f"{len(names)} pictures: shipped {shipped_seconds:.1f} s, plain {plain_seconds:.1f} s")
    print(
        f"ratio: {plain_seconds / shipped_seconds:.1f} (turns: {min(ratios):.1f} to "
        f"{max(ratios):.1f})"
    )
    print(f"same guidance everywhere: {apart:.2f} of 255 apart on average")


if __name__ == "__main__":
    main()
