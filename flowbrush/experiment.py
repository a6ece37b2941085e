"""The only place where all parts meet: one plain-data config, and the parts that it describes."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch

from flowbrush import config_io
from flowbrush.backbones import BackboneConfig, JiTConfig
from flowbrush.condition import Condition
from flowbrush.data import EmojiConfig, SourceConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.data.buckets import BucketsConfig, Shape
from flowbrush.data.mixture import MixtureConfig, sources_of
from flowbrush.data.prepared import MANIFEST_FILE, Manifest, Prepared, PreparedConfig
from flowbrush.data.source import Source
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import Denoiser, FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.processes import Precision
from flowbrush.shapes import Shapes
from flowbrush.spaces import PixelConfig, Space, SpaceConfig
from flowbrush.text import LabelsConfig, SentenceConfig, TextConfig, TextEncoder
from flowbrush.text.prepared import PreparedText

Sharding = Literal["none", "full", "hybrid"]
LONGEST_POWER_EMA = 12**-0.5  # relative length of the plain mean of all steps


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the weights are learned. Progress is counted in pictures seen."""

    pictures: int = 100_000  # when to stop
    seed: int = 0
    start: str = ""  # folder of a run whose averaged weights are the first ones; empty = by chance
    accumulate: int = 1  # parts that a batch is computed in, for less memory
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8  # AdamW's; PRX takes 1e-15
    weight_decay: float = 0.0  # of matrices; never of biases and norms
    warmup: int = 6_400  # pictures over which the learning rate rises from 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up; to 0
    clip: float = 1.0  # max norm of the gradient; 0 = no clipping
    caption_dropout: float = 0.1  # share of captions replaced by the null one, for guidance
    encoder_dropout: float = 0.0  # share of captions that each of several text models does not hear
    ema: tuple[float, ...] = (0.999,)  # decays of the averages that are kept; the first one paints
    ema_warmup: bool | None = None  # young averages follow closely; None = if they begin at random
    power_ema: tuple[float, ...] = ()  # relative lengths of more; of two come all others, later
    precision: Precision = "auto"
    deterministic: bool = False  # torch's deterministic algorithms: the same bits on a GPU as well
    compile: bool = False  # torch.compile of each block
    recompute: bool = False  # blocks are computed again in backward, for less memory
    sharding: Sharding = "none"  # of weights, moments, averages: over all processes, or a machine's
    skip_above: float = 100.0  # times the usual gradient's length a step is skipped; 0 = never
    most_skipped: int = 10  # steps in a row; as many stop the run

    def __post_init__(self) -> None:
        if self.pictures < 1 or self.accumulate < 1 or min(self.lr, self.eps) <= 0 or self.clip < 0:
            raise UserError("train: pictures, accumulate, lr, eps must be above 0, clip 0 or more")
        if self.skip_above < 0 or self.most_skipped < 1:
            raise UserError("train: skip_above must be 0 or more, most_skipped 1 or more")
        if not all(0 <= decay < 1 for decay in self.ema) or not 0 <= self.caption_dropout <= 1:
            raise UserError("train: the decays of ema must be in [0, 1), caption_dropout in [0, 1]")
        if not 0 <= self.encoder_dropout <= 1:
            raise UserError(f"train.encoder_dropout: {self.encoder_dropout}; it is in [0, 1]")
        lengths = self.power_ema
        if not all(0 < length < LONGEST_POWER_EMA for length in lengths):
            raise UserError(
                f"train.power_ema: {lengths}; each is above 0 and below {LONGEST_POWER_EMA:.4f}, "
                "as in 0.05 0.10"
            )
        if len(set(lengths)) < len(lengths):
            raise UserError(f"train.power_ema: {lengths}; a length stands in it twice")

    @property
    def first_average(self) -> str:
        """The state of a checkpoint that the run samples with: its first average, if it has one."""
        return f"ema_{self.ema[0]}" if self.ema else "model"


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What is written down while training goes on. The intervals are pictures seen."""

    log: int = 640
    checkpoint: int = 20_000
    keep: int = 2  # checkpoints
    preview: int = 20_000
    average: int = 20_000  # between snapshots of power_ema; some twenty in a run are enough
    prompts: tuple[str, ...] = ()  # of the previews; empty = captions of the first examples
    tensorboard: bool = False
    wandb: str = ""  # project; empty = no W&B. WANDB_MODE=offline is honoured

    def __post_init__(self) -> None:
        if min(self.log, self.checkpoint, self.keep, self.preview, self.average) < 1:
            raise UserError("watch: log, checkpoint, keep, preview and average must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured of the first average while training goes on; it leaves the run as it is."""

    every: int = 0  # pictures seen from one time to the next; 0 = never
    validation: int = 256  # pictures of the validation loss; 0 = none
    painted: int = 64  # captions that are painted and measured; 0 = none

    def __post_init__(self) -> None:
        if min(self.every, self.validation, self.painted) < 0:
            raise UserError("evaluate: every, validation and painted must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that decides what a run learns and paints."""

    name: str = "experiment"
    size: int = 32  # of the pictures, in pixels
    stages: tuple[tuple[int, int], ...] = ()  # sizes before it: until (pictures) are seen, (size)
    buckets: BucketsConfig = BucketsConfig()  # other shapes than squares
    source: SourceConfig = EmojiConfig()
    held_out: float = 0.0  # share of the source that is never learned, for the validation loss
    batch: BatchConfig = BatchConfig()
    space: SpaceConfig = PixelConfig()
    text: TextConfig = SentenceConfig()
    backbone: BackboneConfig = JiTConfig()
    flow: FlowConfig = FlowConfig()
    train: TrainConfig = TrainConfig()
    sampling: SamplingConfig = SamplingConfig()
    watch: WatchConfig = WatchConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def __post_init__(self) -> None:
        for size in (self.size, *(size for _, size in self.stages)):
            if size < 1:
                raise UserError(f"size: {size} pixels; it must be 1 or more")
            self.buckets.shapes(size)
        ends = [until for until, _ in self.stages]
        if any(after <= before for before, after in pairwise([0, *ends])):
            raise UserError(f"stages: they end after {ends} pictures; each must end after another")
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out: {self.held_out}; it is a share in [0, 1)")
        if self.batch.size % self.train.accumulate:
            raise UserError(
                f"train.accumulate: {self.train.accumulate} parts do not divide a batch of "
                f"{self.batch.size}"
            )

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Heights and widths of the pictures of its last stage."""
        return self.buckets.shapes(self.size)

    @property
    def each_stage(self) -> tuple["ExperimentConfig", ...]:
        """The configs of its stages, which are without stages; its own if it has none."""
        sizes = (*(size for _, size in self.stages), self.size)
        return tuple(replace(self, size=size, stages=()) for size in sizes)

    def stage(self, seen: int) -> int:
        """Which stage goes on after so many pictures."""
        return sum(seen >= until for until, _ in self.stages)

    def learned(self, seen: int) -> "ExperimentConfig":
        """The config of the stage that the step before learned from, which brought it to `seen`."""
        return self.each_stage[self.stage(max(0, seen - self.batch.size))]


CONFIG_FILE, CHECKPOINT_FOLDER = "config.json", "checkpoints"  # of a run


def is_run(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file()


def is_autoencoders(run: Path) -> bool:
    """Whether a run learns an autoencoder."""
    return '"kind": "AutoencoderExperiment"' in (run / CONFIG_FILE).read_text("utf-8", "replace")


def load_config(run: Path) -> ExperimentConfig:
    """The config of a run that paints.

    Raises UserError where it is no run, an autoencoder's run, or its config does not fit.
    """
    if not is_run(run):
        raise UserError(
            f"{run}: not a run's folder, there is no {CONFIG_FILE} in it; train one first"
        )
    if is_autoencoders(run):
        raise UserError(
            f"{run}: an autoencoder's, which has no prompts; train a model on it with "
            f"space=LatentConfig(model='{run}/autoencoder')"
        )
    return config_io.load(ExperimentConfig, run / CONFIG_FILE)


def with_classes(config: ExperimentConfig, source: Source) -> ExperimentConfig:
    """The config with the source's class names written in, where it left them to the source.

    Raises UserError where a model of labels meets a source without classes.
    """
    if not isinstance(config.text, LabelsConfig) or config.text.names:
        return config
    if not source.classes:
        raise UserError(
            "text: labels, but this source has captions without classes; use a sentence encoder"
        )
    return replace(config, text=LabelsConfig(names=source.classes))


AT_EACH_STEP = {f"space.{name}" for name in ("mean", "scale", "sample", "slice", "decode_device")}


def build_encoder(config: ExperimentConfig, source: Source, device: torch.device) -> TextEncoder:
    """What encodes captions while training; of a prepared source, no more than a memory of them.

    Raises UserError where the text model cannot be had, or the source was prepared otherwise.
    """
    parts = sources_of(source)
    stored = [part for part in parts if isinstance(part, Prepared)]
    if not stored:
        return config.text.build(device)
    if len(stored) < len(parts):
        raise UserError("source.parts: some are prepared and some are not; prepare all, or none")
    known: dict[str, Condition] = {}
    for part in stored:
        _check_prepared(config, part)
        if part.manifest.condition != stored[0].manifest.condition:
            raise UserError(f"{part.path}: its captions are not encoded as {stored[0].path}'s are")
        known |= part.known()
    return PreparedText(known, stored[0].null, stored[0].manifest.condition)


def _check_prepared(config: ExperimentConfig, source: Prepared) -> None:
    """Raises UserError where the source was prepared for another experiment."""
    made, where = source.manifest, str(source.path)
    was = config_io.from_json(ExperimentConfig, {"space": made.space, "text": made.text}, where)
    found = config_io.differences(replace(config, space=was.space, text=was.text), config)
    for name, (before, now) in found.items():
        if name not in AT_EACH_STEP:
            raise UserError(f"{name}: {now}, but {where} was prepared with {before}")
    if config.batch.flip and not made.mirrored and made.dtypes["latents"] != "uint8":
        raise UserError(f"batch.flip: {where} holds no mirrored pictures; prepare with it as well")
    if config.train.encoder_dropout:
        raise UserError("train.encoder_dropout: the text models' parts of what is prepared are one")


def unprepared(source: SourceConfig) -> SourceConfig:
    """The source of the pictures themselves, where this one holds what was prepared of them."""
    if isinstance(source, MixtureConfig):
        parts = (replace(part, source=unprepared(part.source)) for part in source.parts)
        return replace(source, parts=tuple(parts))
    if not isinstance(source, PreparedConfig):
        return source
    made = config_io.load(Manifest, source.path / MANIFEST_FILE)
    return config_io.from_json(ExperimentConfig, {"source": made.source}, str(source.path)).source


def build_shapes(config: ExperimentConfig, space: Space, encoder: TextEncoder) -> Shapes:
    """What the backbone will meet."""
    channels, height, width = space.shape(config.size)
    return Shapes(channels=channels, height=height, width=width, condition=encoder.shapes)


def check_shapes(config: ExperimentConfig, space: Space, encoder: TextEncoder) -> None:
    """Raises UserError where its stages or buckets do not fit the space, or not one network."""
    step = config.buckets.step
    asked = [("stages", stage.size) for stage in config.each_stage] if config.stages else []
    asked += [("buckets.step", step)] if step else []  # of which every side is a multiple
    known: dict[str, torch.Size] = {}
    for field, side in asked:
        try:
            channels, height, width = space.shape(side)
            shapes = Shapes(channels=channels, height=height, width=width, condition=encoder.shapes)
            with torch.device("meta"):
                weights = config.backbone.build(shapes).state_dict()
        except UserError as error:
            raise UserError(f"{field}: {side} does not fit ({error})") from None
        found = {name: weight.shape for name, weight in weights.items()}
        if found != (known := known or found):
            network = type(config.backbone).__name__.removesuffix("Config")
            raise UserError(f"{field}: {side} pixels make other weights of {network}; leave it out")


def build_denoiser(config: ExperimentConfig, shapes: Shapes, device: torch.device) -> Denoiser:
    """The network to train, with first weights that depend on the seed alone (drawn on the CPU)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        backbone = config.backbone.build(shapes)
    flow = config.flow
    return Denoiser(backbone, flow.prediction, flow.t_eps, flow.diffusion).to(device)
