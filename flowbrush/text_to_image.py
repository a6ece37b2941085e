"""A trained model that paints."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from flowbrush import averages, checkpoint
from flowbrush.backbones.layers.ahead import computed_ahead
from flowbrush.compute import dtype_of
from flowbrush.data.buckets import Shape, said
from flowbrush.errors import UserError
from flowbrush.experiment import (
    CHECKPOINT_FOLDER,
    ExperimentConfig,
    build_denoiser,
    build_shapes,
    load_config,
)
from flowbrush.finite import check_finite
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.sampling import SamplingConfig, guided, sampling_denoiser, transport
from flowbrush.processes import autocast, choose_device, choose_dtype
from flowbrush.randomness import derive, normal
from flowbrush.spaces import Space
from flowbrush.text import TextEncoder
from flowbrush.text.null import check_null

OTHERS = "its autoencoder or text model is not the one that it began with"


class TextToImage:
    """Prompts and seeds to pictures. `TextToImage.load(run).generate(["a fox"])`."""

    def __init__(
        self,
        config: ExperimentConfig,
        denoiser: Denoiser,
        encoder: TextEncoder,
        space: Space,
        device: torch.device,
        frozen: bool = False,
        weights: str = "model",
        seen: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        """dtype: to compute in; None = the one that the config's precision chooses.
        frozen: the weights stay as they are from now on, so painting may rely on it.

        They are cast once, and what the steps share is computed once.
        weights, seen: which they are, after how many pictures; for what is said of them.
        """
        self.config, self.encoder, self.space, self.device = config, encoder, space, device
        self.denoiser, self.frozen, self.weights, self.seen = denoiser, frozen, weights, seen
        if config.train.precision == "auto" and config.flow.diffusion is not None:
            # What bf16 rounds off the noise, a solver turns into more of the image than it does
            # of a velocity: 0.01 to 0.02 standard deviations, at most 0.1 to 0.6.
            dtype = torch.float32
        self.dtype = dtype or choose_dtype(config.train.precision, device)
        self._lock = threading.RLock()  # of the network, which sampling changes for a while
        if frozen:
            denoiser.to(self.dtype)

    @classmethod
    def load(
        cls,
        run: Path | str,
        weights: str = "ema",
        device: str = "auto",
        say: Callable[[str], None] = print,
        frozen: bool = True,
    ) -> "TextToImage":
        """The model of a run, from its newest whole checkpoint.

        weights: `ema` (the first average), `ema_0.999` (one by name), `power_0.075` (one of any
        relative length, of a run that keeps two such) or `model` (as trained).
        frozen: False leaves them in fp32, to do something else with them.
        Of a run in stages the config is that of the stage which the checkpoint was in.
        Raises UserError where the folder is no run, holds no checkpoint or no such weights, or
        was trained with another text model, and where weights are not finite.
        """
        config = load_config(Path(run))
        found = checkpoint.newest(Path(run) / CHECKPOINT_FOLDER, say)
        config = config.learned(int(found.name))
        if weights == "ema":
            weights = config.train.first_average
        chosen = choose_device(device)
        encoder, space = config.text.build(chosen), config.space.build(chosen)
        check_null(Path(run), encoder.null)
        denoiser = build_denoiser(config, build_shapes(config, space, encoder), chosen)
        if weights.startswith(averages.POWER):
            state = averages.load(Path(run), found, weights, config, chosen, say)
        else:
            state = checkpoint.load(found, weights, chosen)
        checkpoint.check_fits(state, denoiser.backbone, f"{run}: {OTHERS}")
        check_finite(state, f"{found}: {weights}")
        denoiser.backbone.load_state_dict(state)
        dtype, seen = dtype_of(Path(run), config.train.precision, chosen), int(found.name)
        return cls(config, denoiser, encoder, space, chosen, frozen, weights, seen, dtype)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[str],
        sampling: SamplingConfig | None = None,
        seeds: Sequence[int] | None = None,
        batch: int = 64,
        shape: Shape | None = None,
    ) -> UInt8[Tensor, "b 3 H W"]:
        """One picture for each prompt, `batch` at a time, on the CPU.

        sampling: None = the run's own.
        seeds: one a picture, None = 0, 1, 2, ...; their noise is drawn on the CPU, so a picture is
        the same alone, in any batch, and up to rounding on any device.
        shape: height and width, one of `config.shapes`; None = the square.
        Threads may call it at once: one paints after the other.
        Raises UserError for a prompt that the encoder refuses, and for another shape.
        """
        shape = shape or (self.config.size, self.config.size)
        if shape not in self.config.shapes:
            there = ", ".join(map(said, self.config.shapes))
            raise UserError(f"shape: {said(shape)}; this run has learned {there}")
        seeds = range(len(prompts)) if seeds is None else seeds
        if len(seeds) != len(prompts):
            raise UserError(f"seeds: {len(seeds)} for {len(prompts)} prompts; give one for each")
        sampling = sampling or self.config.sampling
        with self._lock:
            was_training = self.denoiser.training
            self.denoiser.eval()
            try:
                painted = [
                    self._paint(list(prompts[i : i + batch]), seeds[i : i + batch], sampling, shape)
                    for i in range(0, len(prompts), batch)
                ]
            finally:
                self.denoiser.train(was_training)
        return torch.cat(painted)

    def _paint(
        self, prompts: list[str], seeds: Sequence[int], sampling: SamplingConfig, shape: Shape
    ) -> UInt8[Tensor, "b 3 H W"]:
        flow = self.config.flow

        def drawn(keys: Sequence[int]) -> Tensor:
            noise = normal(keys, self.space.shape(*shape), torch.device("cpu"))
            return flow.noise_scale * noise.to(self.device)

        noise = drawn([derive(seed, "picture", 0) for seed in seeds])
        dtype = self.dtype if self.frozen else None
        condition = self.encoder(prompts).to(self.device, dtype)
        null = self.encoder.null.to(self.device, dtype)
        backbone = self.denoiser.backbone
        denoiser = sampling_denoiser(backbone, flow, sampling)
        times, learned = sampling.times(flow), False
        if flow.diffusion is not None:
            times = flow.diffusion.seen_time(torch.tensor(times, dtype=torch.float64)).tolist()
            learned = sampling.method == "ddpm" and flow.diffusion.variance == "learned_range"
        field = guided(denoiser.with_variance if learned else denoiser, null, sampling)

        def fresh(step: int) -> Tensor:
            return drawn([derive(seed, "step of sampling", step) for seed in seeds])

        ahead = computed_ahead(backbone, times)
        with ahead if self.frozen else autocast(self.dtype, self.device):
            x = transport(field, noise, condition, sampling, flow, fresh)
        return self.space.decode(x).cpu()
