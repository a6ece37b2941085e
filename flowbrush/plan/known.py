"""Sizes of published models that recipes name, so that a plan needs no download.

As their config.json has them; of LLM-jp and T5Gemma as their authors' tables do.
"""

from typing import Any


def _clip(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": width,
    }


def _t5(width: int, hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": width,
        "d_kv": 64,
        "d_ff": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "feed_forward_proj": "gated-gelu",
    }


def _llm_jp(width: int, hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": 99584,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


TEXT_MODELS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-base-patch32": _clip(512, 12, 8),
    "openai/clip-vit-large-patch14": _clip(768, 12, 12),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": _clip(1280, 32, 20),
    "google/flan-t5-base": _t5(768, 2048, 12, 12),
    "google/t5-v1_1-base": _t5(768, 2048, 12, 12),
    "google/t5-v1_1-large": _t5(1024, 2816, 24, 16),
    "google/t5-v1_1-xl": _t5(2048, 5120, 24, 32),
    "google/t5-v1_1-xxl": _t5(4096, 10240, 24, 64),
    "google/t5gemma-xl-xl-ul2": {
        "model_type": "t5gemma",
        "encoder": {
            "vocab_size": 256000,
            "hidden_size": 2048,
            "intermediate_size": 5120,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "head_dim": 64,
        },
    },
    "llm-jp/llm-jp-3-1.8b": _llm_jp(2048, 7168, 24, 16),
    "llm-jp/llm-jp-3-3.7b": _llm_jp(3072, 8192, 28, 24),
}


def _kl(channels: int, scale: float, shift: float | None, quantized: bool) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": channels,
        "scaling_factor": scale,
        "shift_factor": shift,
        "use_quant_conv": quantized,
        "use_post_quant_conv": quantized,
    }


AUTOENCODERS: dict[str, dict[str, Any]] = {
    "stabilityai/sd-vae-ft-mse": _kl(4, 0.18215, None, True),
    "stabilityai/sd-vae-ft-ema": _kl(4, 0.18215, None, True),
    "stabilityai/sdxl-vae": _kl(4, 0.13025, None, True),
    "stabilityai/stable-diffusion-3-medium-diffusers/vae": _kl(16, 1.5305, 0.0609, False),
    "black-forest-labs/FLUX.1-dev/vae": _kl(16, 0.3611, 0.1159, False),
    "black-forest-labs/FLUX.1-schnell/vae": _kl(16, 0.3611, 0.1159, False),
}
