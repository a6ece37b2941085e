"""Real captioned pictures out of packages: OpenMoji with their English and Japanese names."""

from dataclasses import replace

from flowbrush.backbones import JiTConfig
from flowbrush.data import EmojiConfig, EmojiVariantsConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.spaces import LatentConfig
from flowbrush.text import SentenceConfig

SMALL = JiTConfig(
    depth=6, width=192, heads=6, patch=8, bottleneck=64, context_start=0, tokens_per_text=4
)


def emoji() -> ExperimentConfig:
    """400 emoji at 32 px, painted from their names in English or Japanese: the demo.

    Source: OpenMoji 17 (CC BY-SA 4.0), Unicode's names; JiT's parts at a small size.
    Cost: 3 to 5 minutes on two CPU cores (AVX512-BF16).
    Result: the nearest real picture is the right one
    for 100 % of the English and 99.8 % of the Japanese names.
    """
    return ExperimentConfig(
        name="emoji",
        size=32,
        source=EmojiConfig(concepts=400, languages=("en", "ja")),
        batch=BatchConfig(size=64),
        text=SentenceConfig(),
        backbone=SMALL,
        flow=FlowConfig(prediction="data", times=TimesConfig(mean=-0.6, std=0.8)),
        train=TrainConfig(pictures=64_000, lr=2e-3, warmup=6_400, schedule="linear", ema=(0.998,)),
        sampling=SamplingConfig(method="heun", steps=8, scale=2.5, interval=(0.1, 0.8)),
        watch=WatchConfig(
            prompts=(
                "fox",
                "キツネの顔",
                "banana",
                "バナナ",
                "cat",
                "猫",
                "a red apple",
                "赤いリンゴ",
                "rocket",
                "ロケット",
                "house",
                "家",
                "a sad face",
                "悲しい顔",
                "tree",
                "木",
            ),
            checkpoint=20_480,
            preview=20_480,
        ),
    )


def emoji_latent() -> ExperimentConfig:
    """The demo's emoji at 64 px, in the latents of an autoencoder that was trained here.

    First `flowbrush train emoji-autoencoder`; another one is `--space.model FOLDER`.
    Source: as `emoji`; latents as Rombach et al. 2022. Cost: about 17 minutes on one CPU core
    (AVX512-BF16).
    Result: the nearest real picture is the right one for 100 % of the English and of the Japanese
    names (docs/pictures/emoji-latent.png).
    """
    small = emoji()
    return replace(
        small,
        name="emoji-latent",
        size=64,
        space=LatentConfig(model="runs/emoji-autoencoder/autoencoder", sample=False),
        backbone=replace(SMALL, patch=2, bottleneck=24),
    )


def emoji_variants() -> ExperimentConfig:
    """64 emoji in their skin tones and genders at 32 px; a fifth of the pairs is never learned.

    Source: as `emoji`; 488 pairs are seen, 126 are not. Cost: 4.6 minutes on one CPU core
    (AVX512-BF16).
    Result: the nearest of the 614 real pictures is the right one for 68 % (60 to 77 %) of the
    unseen pairs in English and 68 % in Japanese, for 100 % of as many seen ones. Unseen pairs have
    the right concept in 99 and 100 %, skin tone in 70 and 69 %: else it is mostly the next tone,
    which the concept was seen with (docs/pictures/emoji-variants.png). Their right gender, in 99 %,
    says little, since the concept was seen with it in another tone. Without tones it is composed
    in no more than 11 and 14 % of 36 pairs, and the seen gender painted in 75 %
    (--source.attributes gender --source.concepts 0 --train.pictures 32000).
    """
    small = emoji()
    prompts = (  # unseen pairs
        "thumbs up, medium skin tone",
        "サムズアップ、中間の肌色",
        "open hands",
        "両手のひら",
        "handshake, dark skin tone",
        "握手、濃い肌色",
        "woman astronaut, medium skin tone",
        "女性宇宙飛行士、中間の肌色",
        "man scientist, light skin tone",
        "男性科学者、薄い肌色",
        "mermaid, medium-dark skin tone",
        "マーメイド、やや濃い肌色",
    )
    return replace(
        small,
        name="emoji-variants",
        source=EmojiVariantsConfig(concepts=64),
        watch=replace(small.watch, prompts=prompts),
    )


def emoji_all() -> ExperimentConfig:
    """All 1,395 emoji of a single code point at 32 px.

    Source: as `emoji`. Cost: about 40 minutes on two CPU cores, estimated. Result: not measured.
    """
    small = emoji()
    return replace(
        small,
        name="emoji-all",
        source=EmojiConfig(languages=("en", "ja")),
        backbone=replace(SMALL, width=256, heads=8),
        train=replace(small.train, pictures=500_000),
    )
