"""Several text models side by side, as Flux and SD3 read a caption."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.clip import CLIPConfig, CLIPText
from flowbrush.text.t5 import T5Config, T5Text

T5_TOKENS = 256  # in SD3 and FLUX.1-schnell


@dataclass(frozen=True, kw_only=True)
class FluxTextConfig:
    """T5's tokens and CLIP's pooled vector. The defaults are FLUX.1-schnell's."""

    clip: CLIPConfig = CLIPConfig()
    t5: T5Config = T5Config(tokens=T5_TOKENS, padding="attended")

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where a model cannot be had, or does not fit the fields."""
        clip = CLIPText(*self.clip.load(device), self.clip)
        t5 = T5Text(*self.t5.load(device), self.t5)
        shapes = replace(t5.shapes, pooled_width=clip.pooled_width)
        return CachedEncoder([clip, t5], shapes, _flux)


def _flux(parts: list[Condition]) -> Condition:
    clip, t5 = parts
    return replace(t5, pooled=clip.pooled)


@dataclass(frozen=True, kw_only=True)
class SD3TextConfig:
    """Two CLIPs' tokens side by side, then T5's; both pooled vectors. The defaults are SD3's.

    Without a T5 zeros stand in its place, unless padding is masked: then nothing does.
    """

    clip_l: CLIPConfig = CLIPConfig(layer="penultimate", projected=True, padding="attended")
    clip_g: CLIPConfig = CLIPConfig(
        model="laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        tokenizer="stabilityai/stable-diffusion-xl-base-1.0/tokenizer_2",  # pads with !, as SD3's
        layer="penultimate",
        projected=True,
        padding="attended",
    )
    t5: T5Config | None = T5Config(tokens=T5_TOKENS, padding="attended")
    width: int = 4096  # of the tokens, where there is no T5 to say it

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where a model cannot be had, or does not fit the fields."""
        clip_l, clip_g = (CLIPText(*c.load(device), c) for c in (self.clip_l, self.clip_g))
        if self.t5:
            t5 = T5Text(*self.t5.load(device), self.t5)
            text = SD3Text(clip_l, clip_g, t5)
            return CachedEncoder([clip_l, clip_g, t5], text.shapes, text.join)
        zeros = T5_TOKENS if self.clip_l.padding == "attended" else 0
        text = SD3Text(clip_l, clip_g, Zeros(zeros, self.width))
        return CachedEncoder([clip_l, clip_g], text.shapes, text.join)


@dataclass(frozen=True)
class Zeros:
    """What stands in T5's place where there is none."""

    tokens: int
    width: int


@dataclass(frozen=True)
class SD3Text:
    """What the models make of a caption, side by side. Zeros fill up what is narrower."""

    clip_l: CLIPText
    clip_g: CLIPText
    t5: T5Text | Zeros

    def __post_init__(self) -> None:
        """Raises UserError where T5's vectors are narrower than both CLIPs'."""
        if (clips := self.clip_l.width + self.clip_g.width) > self.t5.width:
            raise UserError(
                f"text: both CLIPs' vectors are {clips} wide, more than T5's {self.t5.width}; "
                "give smaller CLIPs or a larger T5 (without T5: width)"
            )

    @property
    def shapes(self) -> ConditionShapes:
        return ConditionShapes(
            text_width=self.t5.width,
            text_tokens=max(self.clip_l.tokens, self.clip_g.tokens) + self.t5.tokens,
            pooled_width=self.clip_l.pooled_width + self.clip_g.pooled_width,
        )

    def join(self, parts: list[Condition]) -> Condition:
        """parts: of a caption, from each model that there is."""
        small, large, *t5 = (part.text for part in parts if part.text is not None)
        t5 = t5 or [small.new_zeros(1, self.t5.tokens, self.t5.width)]
        pooled = [part.pooled for part in parts if part.pooled is not None]
        n = max(small.shape[1], large.shape[1])  # tokenizers may differ on "!!"
        clips = [_filled(small, n, self.clip_l.width), _filled(large, n, self.clip_g.width)]
        clip = _filled(torch.cat(clips, dim=2), n, self.t5.width)
        return Condition(text=torch.cat([clip, *t5], dim=1), pooled=torch.cat(pooled, dim=1))


def _filled(text: Float[Tensor, "1 n d"], n: int, d: int) -> Float[Tensor, "1 {n} {d}"]:
    """With zeros after it, up to `n` tokens of width `d`."""
    return pad(text, (0, d - text.shape[2], 0, n - text.shape[1]))
