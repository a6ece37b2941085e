"""Six networks at equal training FLOPs, on the drawn shapes and on emoji.

    .venv/bin/python benchmarks/backbones.py runs/backbones [recipe ...]

Each trains with the recipe's settings until it has used the FLOPs that the recipe's JiT takes for
32,000 pictures: the networks differ in cost, so they see different numbers of pictures.
Prints a table and paints a row a network into docs/pictures/backbones-RECIPE.png. A run that is
there already is not trained again.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from flowbrush import TextToImage
from flowbrush.backbones import (
    BackboneConfig,
    DiTConfig,
    FluxConfig,
    JiTConfig,
    MMDiTConfig,
    PixArtConfig,
    UNetConfig,
)
from flowbrush.contact_sheet import contact_sheet, save
from flowbrush.data import ShapesWorldConfig
from flowbrush.evaluate.asked import asked
from flowbrush.evaluate.measure import by_source
from flowbrush.experiment import ExperimentConfig, build_shapes
from flowbrush.flow.loss import flow_loss
from flowbrush.processes import Processes
from flowbrush.randomness import normal
from flowbrush.recipes import recipe
from flowbrush.train.loop import train

CPU, PICTURES, HELD_OUT = torch.device("cpu"), 32_000, 256
PROMPTS = {
    "shapes": (
        "a large red circle", "小さい青い星", "three green squares", "黒い十字が二つ",
        "a red circle above a blue square", "紫の三角の左に黄色い星",
    ),
    "emoji": ("fox", "バナナ", "a red apple", "ロケット", "house", "木"),
}  # fmt: skip


def networks(own: JiTConfig) -> dict[str, BackboneConfig]:
    """Each with the recipe's depth, width and patch, as far as it has them."""
    depth, width, heads, patch = own.depth, own.width, own.heads, own.patch
    size = {"width": width, "heads": heads, "patch": patch}
    head = width // heads
    axes = (head // 4, head * 3 // 8, head * 3 // 8)
    return {
        "UNet": UNetConfig(width=width // 4, pooled_text=True),
        "DiT": DiTConfig(depth=depth, **size, time_scale=1000.0, pooled_text=True),
        "PixArt": PixArtConfig(depth=depth, **size),
        "MMDiT": MMDiTConfig(depth=depth, **size, qk_norm=True),
        "Flux": FluxConfig(
            double_depth=depth // 3, single_depth=depth - depth // 3, **size, axes=axes,
            mask_text=True,
        ),
        "JiT": own,
    }  # fmt: skip


def training_flops(config: ExperimentConfig) -> tuple[int, int]:
    """FLOPs of one picture, forward and backward (two multiplications a weight), and weights."""
    encoder, space = config.text.build(CPU), config.space.build(CPU)
    with torch.device("meta"):
        backbone = config.backbone.build(build_shapes(config, space, encoder))
    x_t = torch.zeros(1, *space.shape(config.size), device="meta")
    with FlopCounterMode(display=False) as counter:
        backbone(x_t, torch.zeros(1, device="meta"), encoder(["fox"]).to(x_t.device))
    return 3 * counter.get_total_flops(), sum(w.numel() for w in backbone.parameters())


@torch.inference_mode()
def held_out_loss(painter: TextToImage) -> float:
    """On scenes that were never trained on, at the same times and noises for all networks."""
    source = ShapesWorldConfig(scenes=10**6).build(painter.config.size)
    examples = [source[len(source) - 1 - i] for i in range(HELD_OUT)]
    pictures = torch.stack([torch.tensor(e.picture) for e in examples]).permute(0, 3, 1, 2)
    data = painter.space.normalize(painter.space.compress(pictures), range(HELD_OUT))
    noise = normal(range(HELD_OUT), data.shape[1:], CPU)
    t = (torch.arange(HELD_OUT) % 8 + 0.5) / 8
    condition = painter.encoder([e.captions["en"] for e in examples]).to(CPU, painter.dtype)
    return float(flow_loss(painter.denoiser, data, noise, t, condition, "velocity").mean())


def main() -> None:
    folder, chosen = Path(sys.argv[1]), sys.argv[2:] or ["shapes", "emoji"]
    for name in chosen:
        own = recipe(name)
        assert isinstance(own.backbone, JiTConfig)
        budget = PICTURES * training_flops(own)[0]
        print(f"\n{name}: {budget / 1e12:.1f} TFLOP each\n")
        score = "loss on new scenes" if name == "shapes" else "right first, English | Japanese"
        columns = f"| network | M weights | MFLOP a picture | pictures | minutes | {score} |"
        print(f"{columns}\n|---|--:|--:|--:|--:|--:|{'' if name == 'shapes' else '--:|'}")
        rows: list[torch.Tensor] = []
        captions: list[str] = []
        for kind, backbone in networks(own.backbone).items():
            config = replace(own, name=f"{name}-{kind}", backbone=backbone)
            flops, weights = training_flops(config)
            seen = round(budget / flops / own.batch.size) * own.batch.size
            settings = replace(own.train, pictures=seen, warmup=min(6_400, seen // 10))
            config = replace(config, train=settings, watch=replace(own.watch, preview=10**9))
            run, began = folder / config.name, time.perf_counter()
            if not (run / "checkpoints" / f"{seen:012d}").exists():
                train(config, run, Processes(CPU))
            minutes = (time.perf_counter() - began) / 60
            painter = TextToImage.load(run)
            if name == "shapes":
                said = f"{held_out_loss(painter):.4f}"
            else:
                what = asked(own.source.build(own.size), 400, ("en", "ja"))
                measured = by_source(what, [painter.generate(what.captions)])
                right = [one.value for one in measured if one.name.startswith("right first")]
                said = " | ".join(f"{share:.1%}" for share in right)
            rows.append(painter.generate(PROMPTS[name], seeds=[0] * len(PROMPTS[name])))
            captions += [f"{kind}: {prompt}" for prompt in PROMPTS[name]]
            print(
                f"| {kind} | {weights / 1e6:.1f} | {flops / 1e6:.0f} | {seen:,} | {minutes:.1f} | "
                f"{said} |",
                flush=True,
            )
        sheet = contact_sheet(torch.cat(rows), captions, columns=len(PROMPTS[name]))
        save(sheet, Path(__file__).parents[1] / "docs" / "pictures" / f"backbones-{name}.png")


if __name__ == "__main__":
    main()
