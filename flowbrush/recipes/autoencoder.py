"""Latent spaces learned here: what LatentConfig reads from runs/NAME/autoencoder."""

from flowbrush.autoencoding import AutoencoderConfig, AutoencoderExperiment, AutoencoderLossConfig
from flowbrush.data import EmojiConfig, FolderConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import TrainConfig, WatchConfig


def emoji_autoencoder() -> AutoencoderExperiment:
    """All emoji at 64 px through 16 x 16 x 6 numbers, 8 times fewer; a tenth is held out.

    Source: OpenMoji 17 (CC BY-SA 4.0); the layers of Rombach et al. 2022 at a small size.
    Cost: 9 minutes of one CPU core (AVX512-BF16).
    Result: 29.2 dB PSNR, the mean over 143 emoji that it never saw (27.3 dB of their mean error;
    the worst of them 19.8 dB). On those it was trained on it is 29.4 dB.
    """
    return AutoencoderExperiment(
        name="emoji-autoencoder",
        size=64,
        source=EmojiConfig(),
        held_out=0.1,
        batch=BatchConfig(size=16, flip=True),
        autoencoder=AutoencoderConfig(channels=6, widths=(16, 32, 64), layers=1, groups=8),
        loss=AutoencoderLossConfig(l1=1.0, edges=0.0, kl=0.01),
        train=TrainConfig(
            pictures=32_000,
            lr=2e-3,
            betas=(0.9, 0.99),
            warmup=1_600,
            schedule="cosine",
            ema=(0.995,),
        ),
        watch=WatchConfig(log=640, checkpoint=10_240, preview=10_240),
    )


def folder_autoencoder() -> AutoencoderExperiment:
    """Pictures from `--source.path FOLDER` at 128 px through 16 x 16 x 16 numbers, 12 times fewer.

    Source: your own; the layers of Rombach et al. 2022.
    Cost: about 5 hours on two CPU cores, estimated.
    Result: yours to see.
    """
    return AutoencoderExperiment(
        name="folder-autoencoder",
        size=128,
        source=FolderConfig(),
        held_out=0.05,
        batch=BatchConfig(size=16, flip=True),
        autoencoder=AutoencoderConfig(channels=16, widths=(32, 64, 128, 128), layers=1, groups=8),
        train=TrainConfig(
            pictures=200_000,
            lr=1e-3,
            betas=(0.9, 0.99),
            warmup=3_200,
            schedule="cosine",
            ema=(0.999,),
        ),
    )
