"""Attention of a CPU in bf16 is computed in fp32 where that is faster."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from flowbrush.backbones.layers import attention
from flowbrush.backbones.layers.attention import SelfAttention, attend


def heads(dtype: torch.dtype, n: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, n, 4, generator=generator).to(dtype) for _ in range(3)]


def exact(q, k, v, mask=None) -> torch.Tensor:
    out = scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("masked", [False, True])
def test_in_bf16_the_result_is_rounded_once(monkeypatch, masked):
    monkeypatch.setattr(attention, "FP32_KEYS", 5)
    q, k, v = heads(torch.bfloat16)
    mask = torch.tensor([True, True, False, True, False]).expand(2, 1, 1, 5) if masked else None
    out = attend(q, k, v, mask)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, exact(q, k, v, mask).float().to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_more_keys_the_dtype_stays(monkeypatch, dtype):
    monkeypatch.setattr(attention, "FP32_KEYS", 4)
    seen = []

    def spy(q, k, v, attn_mask):
        seen.append((q.dtype, k.dtype, v.dtype))
        return scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", spy)
    attend(*heads(dtype))
    assert seen == [(dtype,) * 3]


def test_under_autocast_it_is_computed_in_fp32_forward_and_backward(monkeypatch):
    monkeypatch.setattr(attention, "FP32_KEYS", 5)
    seen = []

    def spy(q, k, v, attn_mask):
        out = scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        out.register_hook(lambda gradient: seen.append(gradient.dtype))
        seen.append(out.dtype)
        return out

    monkeypatch.setattr(attention, "scaled_dot_product_attention", spy)
    layer = SelfAttention(12, 3)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(2, 5, 12)).float().sum().backward()
    assert seen == [torch.float32, torch.float32]
    assert layer.qkv.weight.grad.dtype == torch.float32
