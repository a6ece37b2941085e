"""Our networks and diffusers' classes of the same size, in turns in one process.

    .venv/bin/python benchmarks/against_diffusers.py [rounds]

Both train with fp32 weights (autocast for bf16) on the same batch; diffusers' with torch's AdamW as
its examples set it up, ours with the fused one and an average of the weights besides. One guided
evaluation is one batch of condition and null; bf16 weights are cast once for both. Sizes are equal:
width 384, 256 image tokens, 77 text tokens, of which ours may know that only 25 are real.
"""

import statistics
import sys
import time
from collections.abc import Callable

import diffusers
import torch
from torch import Tensor, nn

from flowbrush.backbones import FluxConfig, MMDiTConfig, PixArtConfig
from flowbrush.condition import Condition
from flowbrush.experiment import TrainConfig
from flowbrush.processes import autocast
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.train.ema import EMA
from flowbrush.train.optimizer import build_optimizer

CPU, B, TOKENS, REAL = torch.device("cpu"), 2, 77, 25
GIVEN = ConditionShapes(text_width=256, text_tokens=TOKENS, pooled_width=128)
SHAPES = Shapes(channels=4, height=32, width=32, condition=GIVEN)


def ours(kind: str) -> nn.Module:
    if kind == "flux":
        config = FluxConfig(double_depth=2, single_depth=4, width=384, heads=6, axes=(16, 24, 24))
        return config.build(SHAPES)
    if kind == "sd3":
        return MMDiTConfig(depth=6, width=384, heads=6).build(SHAPES)
    return PixArtConfig(depth=6, width=384, heads=6).build(SHAPES)


def theirs(kind: str) -> nn.Module:
    if kind == "flux":
        return diffusers.FluxTransformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=4, attention_head_dim=64,
            num_attention_heads=6, joint_attention_dim=256, pooled_projection_dim=128,
            axes_dims_rope=(16, 24, 24),
        )  # fmt: skip
    if kind == "sd3":
        return diffusers.SD3Transformer2DModel(
            sample_size=32, in_channels=4, num_layers=6, attention_head_dim=64,
            num_attention_heads=6, joint_attention_dim=256, caption_projection_dim=384,
            pooled_projection_dim=128, out_channels=4, pos_embed_max_size=32,
        )  # fmt: skip
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=6, attention_head_dim=64, in_channels=4, out_channels=4, num_layers=6,
        cross_attention_dim=384, caption_channels=256, sample_size=32,
        use_additional_conditions=False,
    )  # fmt: skip


def call_theirs(
    kind: str, net: nn.Module, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor
) -> Tensor:
    mask = (torch.arange(TOKENS) < REAL).expand(len(x), -1)
    if kind == "flux":
        packed = x.view(len(x), 4, 16, 2, 16, 2).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        ids = torch.zeros(256, 3)
        ids[:, 1], ids[:, 2] = torch.arange(256) // 16, torch.arange(256) % 16
        return net(
            packed, text, pooled, t, img_ids=ids, txt_ids=torch.zeros(TOKENS, 3), return_dict=False
        )[0]
    if kind == "sd3":
        return net(x, text, pooled, t * 1000, return_dict=False)[0]
    return net(
        x, text, t * 1000, {"resolution": None, "aspect_ratio": None},
        encoder_attention_mask=mask.to(x.dtype), return_dict=False,
    )[0]  # fmt: skip


def call_ours(
    kind: str, net: nn.Module, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor
) -> Tensor:
    if kind == "pixart":  # masked there as well, so here the padding is not even sent
        text = text[:, :REAL]
    return net(x, t, Condition(text=text, pooled=pooled))


Call = Callable[[str, nn.Module, Tensor, Tensor, Tensor, Tensor], Tensor]


def inputs(b: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.randn(b, 4, 32, 32),
        torch.rand(b),
        torch.randn(b, TOKENS, 256),
        torch.randn(b, 128),
    )


def trainer(
    kind: str, net: nn.Module, call: Call, dtype: torch.dtype, fused: bool
) -> Callable[[], None]:
    if fused:
        optimizer, ema = build_optimizer(net, TrainConfig()), EMA(net, 0.999)
    else:
        optimizer, ema = torch.optim.AdamW(net.parameters(), lr=1e-4), None
    given = inputs(B)

    def step() -> None:
        with autocast(dtype, CPU):
            loss = call(kind, net, *given).float().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if ema:
            ema.update(1000)

    return step


def sampler(kind: str, net: nn.Module, call: Call, dtype: torch.dtype) -> Callable[[], None]:
    net = net.to(dtype).eval()
    x, t, text, pooled = (part.to(dtype) for part in inputs(2 * B))

    @torch.no_grad()
    def evaluate() -> None:
        given, null = call(kind, net, x, t, text, pooled).chunk(2)
        _ = null + 3.0 * (given - null)

    return evaluate


def ratio(mine: Callable[[], None], other: Callable[[], None], rounds: int) -> str:
    """How much longer `other` takes, as the median over the rounds, and the range."""
    mine(), other()
    ratios = []
    for _ in range(rounds):
        began = time.perf_counter()
        mine()
        between = time.perf_counter()
        other()
        ratios.append((time.perf_counter() - between) / (between - began))
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| network | dtype | training step | guided evaluation |\n|---|---|--:|--:|")
    for kind in ("flux", "sd3", "pixart"):
        for dtype in (torch.float32, torch.bfloat16):
            a, b = ours(kind), theirs(kind)
            train = ratio(
                trainer(kind, a, call_ours, dtype, True),
                trainer(kind, b, call_theirs, dtype, False),
                rounds,
            )
            sample = ratio(
                sampler(kind, a, call_ours, dtype), sampler(kind, b, call_theirs, dtype), rounds
            )
            print(f"| {kind} | {str(dtype)[6:]} | {train} | {sample} |", flush=True)


if __name__ == "__main__":
    main()
