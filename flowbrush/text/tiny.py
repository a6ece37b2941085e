"""Small text models with random weights: mock runs and tests without a download.

Their tokenizers know characters only: CLIP's and the LLM's any (as bytes), T5's English and kana.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flowbrush.hub import quiet
from flowbrush.text.pretrained import import_transformers

START, END = "<|startoftext|>", "<|endoftext|>"


def tiny_clip(
    model: Path, tokenizer: Path, width: int = 32, projection: int | None = None, seed: int = 0
) -> None:
    """Writes a CLIP text model and its tokenizer into two folders, in transformers' format.

    width: a multiple of 16. projection: the width of the projected pooled vector (as SD3 wants
    it); None = there is no projection (as in Flux). Raises UserError without transformers.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    transformers = import_transformers()
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), START, END]
    words = transformers.CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=77
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 16,
        projection_dim=projection or width,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    cls = "CLIPTextModelWithProjection" if projection else "CLIPTextModel"
    _write(getattr(transformers, cls), config, model, seed)
    words.save_pretrained(tokenizer)


def tiny_t5(model: Path, tokenizer: Path, width: int = 64, seed: int = 0) -> None:
    """Writes a T5 encoder and its tokenizer into two folders, in transformers' format.

    width: a multiple of 16. Raises UserError without transformers.
    """
    transformers = import_transformers()
    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0x3041, 0x30FF))]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    pieces += [(letter, -1.0) for letter in letters]
    words = transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
    config = transformers.T5Config(
        vocab_size=len(pieces),
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=2,
        num_heads=width // 16,
        feed_forward_proj="gated-gelu",  # as T5 v1.1
    )
    _write(transformers.T5EncoderModel, config, model, seed)
    words.save_pretrained(tokenizer)


def tiny_llm(model: Path, tokenizer: Path, width: int = 64, seed: int = 0) -> None:
    """Writes a Llama and its tokenizer into two folders, in transformers' format.

    width: a multiple of 16. Raises UserError without transformers.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    transformers = import_transformers()
    begin, end = "<s>", "</s>"
    pieces = [begin, end, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    letters = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, 0)]
    )
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=letters, bos_token=begin, eos_token=end
    )
    config = transformers.LlamaConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 16,
        bos_token_id=0,
        eos_token_id=1,
    )
    _write(transformers.LlamaModel, config, model, seed)
    words.save_pretrained(tokenizer)


def _write(cls: Callable[[Any], Any], config: Any, folder: Path, seed: int) -> None:
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cls(config).save_pretrained(folder)
