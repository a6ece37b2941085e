"""How well the oracle reads what shapes_world drew: clean, with noise, blurred and both.

.venv/bin/python benchmarks/oracle.py [pictures]
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter

from flowbrush.data import ShapesWorldConfig
from flowbrush.data.shapes_world import COLOURS, SHAPES, Scene, Thing
from flowbrush.evaluate.oracle import NOTHING, UNCLEAR, Skill, confusion, read

KINDS = "single", "count", "relation"
SPOILT = {"clean": (0, 0.0), "noise": (16, 0.0), "blur": (0, 0.6), "both": (16, 0.6)}


def spoilt(picture: np.ndarray, noise: int, blur: float, seed: int) -> torch.Tensor:
    """noise: of 255. blur: in pixels of 32."""
    image = Image.fromarray(picture)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur * image.width / 32))
    rows = np.asarray(image) + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return torch.from_numpy(np.clip(np.rint(rows), 0, 255).astype(np.uint8)).permute(2, 0, 1)


def looks(things: Sequence[Thing]) -> Counter[tuple[str, str, str]]:
    return Counter((thing.shape, thing.colour, thing.size) for thing in things)


def table(confused: dict[str, Counter[str]], names: Sequence[str]) -> Iterator[str]:
    """In markdown: a row for what was asked, a column for what was read."""
    columns = [*names, UNCLEAR, NOTHING]
    yield f"| asked | {' | '.join(columns)} |"
    yield f"|---|{'--:|' * len(columns)}"
    for name in names:
        yield f"| {name} | {' | '.join(f'{confused[name][column]:,}' for column in columns)} |"


def main() -> None:
    pictures = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    print(f"{pictures:,} pictures each; right: every thing's shape, colour and size, none more\n")
    print("| side | kind | picture | right | 95 % | ms a picture |\n|--:|---|---|--:|---|--:|")
    scenes: list[Scene] = []
    seen: list[tuple[Thing, ...]] = []
    for side in (32, 64):
        for kind in KINDS:
            source = ShapesWorldConfig(scenes=pictures, kinds=(kind,), seed=1).build(side)
            examples = [source[i] for i in range(pictures)]
            for name, (noise, blur) in SPOILT.items():
                spoiled = [spoilt(e.picture, noise, blur, i) for i, e in enumerate(examples)]
                began = time.process_time()
                things = [read(picture) for picture in spoiled]
                spent = (time.process_time() - began) / pictures * 1000
                truths = [example.truth for example in examples]
                right = [looks(a) == looks(b.things) for a, b in zip(things, truths, strict=True)]
                skill = Skill(sum(right), pictures)
                low, high = skill.interval
                print(
                    f"| {side} | {kind} | {name} | {skill.share:.2%} | {low:.2%} to {high:.2%} "
                    f"| {spent:.1f} |",
                    flush=True,
                )
                scenes += truths
                seen += things
    print("\nAll of these pictures together, single and count:\n")
    print(*table(confusion(scenes, seen, "colour"), list(COLOURS)), sep="\n")
    print()
    print(*table(confusion(scenes, seen, "shape"), list(SHAPES)), sep="\n")


if __name__ == "__main__":
    main()
