"""One's own captioned pictures."""

from flowbrush.backbones import JiTConfig
from flowbrush.data import FolderConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.text import SentenceConfig


def folder() -> ExperimentConfig:
    """Captioned pictures from `--source.path FOLDER` at 64 px, in any of 16 languages.

    Source: your own.
    Cost: about 3 hours on two CPU cores, estimated; minutes on a GPU.
    Result: yours to see.
    """
    return ExperimentConfig(
        name="folder",
        size=64,
        source=FolderConfig(),
        batch=BatchConfig(size=64, flip=True),
        text=SentenceConfig(),
        backbone=JiTConfig(
            depth=8, width=256, heads=8, patch=8, bottleneck=64, context_start=0, tokens_per_text=4
        ),
        flow=FlowConfig(prediction="data", times=TimesConfig(mean=-0.8, std=0.8)),
        train=TrainConfig(pictures=500_000, lr=1e-3, ema=(0.999, 0.9999)),
        sampling=SamplingConfig(method="heun", steps=20, scale=2.5, interval=(0.1, 0.9)),
    )
