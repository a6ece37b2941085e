"""Our networks and diffusers' classes of the same size, in turns in one process.

    .venv/bin/python benchmarks/against_diffusers.py [rounds]

Both train with fp32 weights (autocast for bf16) on the same batch; diffusers' with torch's AdamW as
its examples set it up, ours with the fused one and an average of the weights besides. Guided
sampling is eight Euler steps for one picture, each as the pipelines do it: Flux in two passes, the
others in one batch; bf16 weights are cast once for both. Sizes are equal: width 384, 256 image
tokens, a text of 77 tokens. In the columns "masked" the text has 25 real tokens and 52 of padding:
ours leaves it out, as wherever it trains with a mask; diffusers' classes of Flux and SD3
know no mask, and PixArt's computes what it masks. Memory is what a process of its own grows by,
without an average in both.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from einops import rearrange
from torch import Tensor, nn

from flowbrush.backbones import FluxConfig, MMDiTConfig, PixArtConfig
from flowbrush.backbones.layers.ahead import computed_ahead
from flowbrush.condition import Condition
from flowbrush.experiment import TrainConfig
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.guidance import Guided
from flowbrush.flow.sampling import SamplingConfig, transport
from flowbrush.processes import autocast
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.train.ema import EMA, exponential
from flowbrush.train.optimizer import build_optimizer

CPU, B, TOKENS, REAL, STEPS = torch.device("cpu"), 2, 77, 25, 8
GIVEN = ConditionShapes(text_width=256, text_tokens=TOKENS, pooled_width=128)
SHAPES = Shapes(channels=4, height=32, width=32, condition=GIVEN)


def ours(kind: str, masked: bool = False) -> nn.Module:
    if kind == "flux":
        config = FluxConfig(
            double_depth=2, single_depth=4, width=384, heads=6, axes=(16, 24, 24), mask_text=masked
        )
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
    return net(x, t, Condition(text=text, pooled=pooled))


def call_ours_masked(
    kind: str, net: nn.Module, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor
) -> Tensor:
    return net(x, t, Condition(text=text[:, :REAL], pooled=pooled))


Call = Callable[[str, nn.Module, Tensor, Tensor, Tensor, Tensor], Tensor]


def inputs(b: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.randn(b, 4, 32, 32),
        torch.rand(b),
        torch.randn(b, TOKENS, 256),
        torch.randn(b, 128),
    )


def trainer(
    kind: str, net: nn.Module, call: Call, dtype: torch.dtype, fused: bool, averaged: bool = False
) -> Callable[[], None]:
    adamw = torch.optim.AdamW(net.parameters(), lr=1e-4)
    optimizer = build_optimizer(net, TrainConfig()) if fused else adamw
    ema = EMA(net, exponential(0.999)) if averaged else None
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


def sampler(net: nn.Module, dtype: torch.dtype, tokens: int) -> Callable[[], None]:
    """As TextToImage paints."""
    net = net.to(dtype).eval()
    x, _, text, pooled = (part.to(dtype) for part in inputs(1))
    condition = Condition(text=text[:, :tokens], pooled=pooled)
    settings = SamplingConfig(method="euler", steps=STEPS, scale=3.0)

    @torch.inference_mode()
    def sample() -> None:
        with computed_ahead(net, settings.times):
            transport(
                Guided(Denoiser(net, "velocity", 0.05), condition, 3.0), x, condition, settings
            )

    return sample


def their_sampler(kind: str, net: nn.Module, dtype: torch.dtype) -> Callable[[], None]:
    """As diffusers' pipelines do."""
    net = net.to(dtype).eval()
    x, _, text, pooled = (part.to(dtype) for part in inputs(1))
    both, both_pooled = torch.cat([text, text]), torch.cat([pooled, pooled])

    def said(x: Tensor, t: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        out = call_theirs(kind, net, x, t, text, pooled)
        return (
            rearrange(out, "b (h w) (c p q) -> b c (h p) (w q)", h=16, p=2, q=2)
            if (kind == "flux")
            else out
        )

    @torch.inference_mode()
    def sample() -> None:
        now = x
        for i in range(STEPS):
            t = torch.full((2,), 1 - i / STEPS, dtype=dtype)
            if kind == "flux":
                given = said(now, t[:1], text, pooled)
                null = said(now, t[:1], text, pooled)
            else:
                null, given = said(torch.cat([now, now]), t, both, both_pooled).chunk(2)
            now = now - (null + 3.0 * (given - null)) / STEPS

    return sample


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


def grown(kind: str, who: str, dtype: torch.dtype) -> float:
    """MB by which a training step and sampling let this process grow at most."""
    Path("/proc/self/clear_refs").write_text("5")  # or the peak is that of the parent
    before = peak()
    net = (ours if who == "ours" else theirs)(kind)
    call = call_ours if who == "ours" else call_theirs
    step = trainer(kind, net, call, dtype, who == "ours")
    step(), step()
    (sampler(net, dtype, TOKENS) if who == "ours" else their_sampler(kind, net, dtype))()
    return peak() - before


def peak() -> float:
    """The most memory that this process has held, in MB (Linux)."""
    said = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(said.split()[0]) / 1024


def memory(kind: str, dtype: torch.dtype) -> str:
    """Theirs over ours, each in a process of its own."""
    found = {}
    for who in ("ours", "theirs"):
        child = [sys.executable, __file__, "memory", kind, who, str(dtype)[6:]]
        said = subprocess.run(child, capture_output=True, text=True, check=True).stdout
        found[who] = float(said.split()[-1])
    return f"{found['theirs'] / found['ours']:.2f} ({found['theirs']:.0f} : {found['ours']:.0f} MB)"


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if sys.argv[1:2] == ["memory"]:
        print(grown(sys.argv[2], sys.argv[3], getattr(torch, sys.argv[4])))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(
        "| network | dtype | training | training, masked | sampling | sampling, masked | memory |"
    )
    print("|---|---|--:|--:|--:|--:|--:|")
    for kind in ("flux", "sd3", "pixart"):
        for dtype in (torch.float32, torch.bfloat16):
            whole, masked, b = ours(kind), ours(kind, masked=True), theirs(kind)
            other = trainer(kind, b, call_theirs, dtype, False)
            cells = [
                ratio(trainer(kind, net, call, dtype, True, averaged=True), other, rounds)
                for net, call in ((whole, call_ours), (masked, call_ours_masked))
            ]
            other = their_sampler(kind, b, dtype)
            cells += [
                ratio(sampler(net, dtype, tokens), other, rounds)
                for net, tokens in ((whole, TOKENS), (masked, REAL))
            ]
            cells.append(memory(kind, dtype))
            print(f"| {kind} | {str(dtype)[6:]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
