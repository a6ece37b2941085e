"""Where patches look: computed by hand, and beside a network that does not notice."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import untrained

from flowbrush.backbones import JiTConfig, PixArtConfig
from flowbrush.backbones.layers.attention import CrossAttention
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.learn.attention_maps import Look, maps_at, probabilities, recorded_attention
from flowbrush.text import SentenceConfig
from flowbrush.text_to_image import TextToImage

CPU = torch.device("cpu")
PROMPT = ["a red apple"]
TINY = PixArtConfig(depth=2, width=16, heads=2, patch=4)


def painter(backbone: PixArtConfig | JiTConfig = TINY) -> TextToImage:
    config = ExperimentConfig(
        size=16,
        text=SentenceConfig(words=4),
        backbone=backbone,
        sampling=SamplingConfig(steps=2, interval=(0.0, 0.4)),
    )
    config = replace(config, train=replace(config.train, precision="fp32"))
    built = untrained(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in built.denoiser.parameters():
            torch.nn.init.normal_(weight, std=0.2)  # at zero, nothing before it would be heard
    return TextToImage(config, built.denoiser, built.encoder, built.space, CPU, frozen=True)


def hooks(network: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_two_tokens_are_looked_at_as_computed_by_hand():
    attention = CrossAttention(2, 1)
    with torch.no_grad():
        attention.q.weight.copy_(torch.eye(2))
        attention.kv.weight.copy_(torch.cat([torch.eye(2), torch.zeros(2, 2)]))
        attention.q.bias.zero_()
        attention.kv.bias.zero_()
    x = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    context = torch.tensor([[[math.sqrt(2) * math.log(3), 5.0], [0.0, 7.0]]])
    found = probabilities(attention, x, context)
    # The first patch: q k / sqrt(2) = log 3 and 0, so 3 to 1; the second looks at both alike.
    torch.testing.assert_close(found, torch.tensor([[[[0.75, 0.25], [0.5, 0.5]]]]))


def test_values_mixed_by_them_are_what_the_layer_says():
    attention, mask = CrossAttention(8, 2), torch.tensor([[[[True, True, False]]]])
    x, context = torch.randn(1, 5, 8), torch.randn(1, 3, 8)
    shares = probabilities(attention, x, context, mask)
    values = attention.kv(context)[:, :, 8:].unflatten(2, (2, 4)).transpose(1, 2)
    mixed = (shares @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.proj(mixed), attention(x, context, mask))


def test_a_token_that_is_padding_is_not_looked_at():
    attention, mask = CrossAttention(8, 2), torch.tensor([[[[True, True, False]]]])
    shares = probabilities(attention, torch.randn(1, 5, 8), torch.randn(1, 3, 8), mask)
    assert (shares[..., 2] == 0).all()
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(1, 2, 5))


def test_what_is_painted_stays_the_same_to_the_bit():
    plain = painter().generate(PROMPT)
    with recorded_attention((watched := painter()).denoiser.backbone):
        assert torch.equal(watched.generate(PROMPT), plain)
    assert not torch.equal(watched.generate(["the sea"]), plain), "it hears its prompt"


def test_each_layer_is_recorded_at_each_time_of_the_solver():
    model = painter()
    with recorded_attention(model.denoiser.backbone) as looks:
        model.generate(PROMPT)
    assert [(look.t, look.layer) for look in looks] == [
        (t, layer) for t in (0.0, 0.5, 0.5, 1.0) for layer in (0, 1)
    ]
    tokens = model.encoder(PROMPT).text.shape[1]
    assert looks[0].probabilities.shape == (2, 2, 16, tokens)  # guided: with and without a caption
    assert looks[-1].probabilities.shape == (1, 2, 16, tokens)


def test_its_hooks_are_gone_afterwards_also_after_a_mistake():
    backbone = painter().denoiser.backbone
    with pytest.raises(ZeroDivisionError), recorded_attention(backbone):
        assert hooks(backbone) == 3
        _ = 1 / 0
    assert hooks(backbone) == 0


def test_a_network_without_cross_attention_is_refused_in_one_line():
    backbone = painter(
        JiTConfig(
            depth=1, width=16, heads=2, patch=4, bottleneck=4, context_start=0, tokens_per_text=2
        )
    ).denoiser.backbone
    with pytest.raises(UserError, match=r"^a JiT has no cross-attention; take a PixArt$"):
        recorded_attention(backbone).__enter__()


def test_a_map_is_the_mean_over_heads_at_the_nearest_time_its_rows_from_the_top():
    shares = torch.zeros(1, 2, 4, 2)
    shares[..., 0] = 1
    shares[0, 0, 1] = torch.tensor([0.0, 1.0])  # the upper right patch, of one head of two
    looks = [Look(0.0, 0, torch.ones(1, 2, 4, 2) / 2), Look(0.5, 0, shares)]
    of_second = maps_at(looks, t=0.7)[1]
    torch.testing.assert_close(of_second, torch.tensor([[0.0, 0.5], [0.0, 0.0]]))


def test_a_map_is_of_one_layer_or_of_all():
    zeros = torch.zeros(1, 1, 4, 1)
    looks = [Look(0.0, 0, zeros), Look(0.0, 1, zeros + 1)]
    assert float(maps_at(looks, 0.0).mean()) == 0.5
    assert float(maps_at(looks, 0.0, layer=1).mean()) == 1
