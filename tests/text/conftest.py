"""Text models too small to mean anything, in folders as a diffusers pipeline has them."""

from pathlib import Path

import pytest

from flowbrush.text.tiny import tiny_clip, tiny_t5


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """CLIP-L, CLIP-G (whose tokenizer pads with "!") and T5, as in Stable Diffusion 3's folder."""
    from transformers import CLIPTokenizer

    root = tmp_path_factory.mktemp("models")
    tiny_clip(root / "text_encoder", root / "tokenizer", width=32, projection=16)
    tiny_clip(root / "text_encoder_2", root / "tokenizer_2", width=48, projection=24, seed=1)
    tiny_t5(root / "text_encoder_3", root / "tokenizer_3", width=96)
    padder = CLIPTokenizer.from_pretrained(root / "tokenizer_2", pad_token="!")
    padder.save_pretrained(root / "tokenizer_2")
    return root
