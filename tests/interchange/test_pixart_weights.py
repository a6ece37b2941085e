"""PixArt's published weights: the golden output, diffusers' own network, and back to the bit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import load_file
from torch import Tensor, nn

from flowbrush.backbones.pixart import PixArt, PixArtConfig
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.interchange import pixart
from flowbrush.interchange.rules import to_ours, to_theirs
from flowbrush.shapes import ConditionShapes, Shapes

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "num_layers": 2,
    "in_channels": 3,
    "out_channels": 6,
    "cross_attention_dim": 48,
    "caption_channels": 20,
    "sample_size": 12,
    "use_additional_conditions": False,
}
WITH_SIZE = TINY | {"use_additional_conditions": True}


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1, generator=generator)


def with_weights(settings: dict, published: dict[str, Tensor], time_scale: float) -> PixArt:
    """Our network with published weights, and with another time scale."""
    config, shapes = pixart.config_from(settings, "x"), pixart.shapes_from(settings, "x")
    network = replace(config, time_scale=time_scale).build(shapes)
    network.load_state_dict(to_ours(pixart.rules(config, shapes), config.depth, published, "x"))
    return network.eval()


@pytest.fixture(scope="module")
def golden():
    tensors = load_file(GOLDEN / "pixart_a.safetensors")
    settings = json.loads((GOLDEN / "pixart_a.json").read_text())["config"]
    weights = {name[2:]: weight for name, weight in tensors.items() if name.startswith("w.")}
    condition = Condition(
        text=tensors["in.encoder_hidden_states"],
        text_mask=tensors["in.encoder_attention_mask"].bool(),
    )
    return settings, weights, tensors, condition


@torch.no_grad()
def test_a_pixart_gives_the_published_noise(golden):
    settings, weights, tensors, condition = golden
    network = with_weights(settings, weights, time_scale=1.0)  # sees the timestep to the bit
    noise = network(tensors["in.hidden_states"], tensors["in.timestep"], condition)
    torch.testing.assert_close(noise, tensors["out.eps_sigma"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_published_noise_time_is_one_minus_ours(golden):
    settings, weights, tensors, condition = golden
    network = with_weights(settings, weights, pixart.config_from(settings, "x").time_scale)
    noise = network(tensors["in.hidden_states"], 1 - tensors["in.timestep"] / 1000, condition)
    torch.testing.assert_close(noise, tensors["out.eps_sigma"], atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("settings", "height", "width"),
    [
        (TINY, 12, 12),
        (TINY, 8, 20),
        (TINY | {"interpolation_scale": 0.5, "out_channels": None}, 24, 6),
        (TINY | {"patch_size": 4, "interpolation_scale": 2}, 8, 12),
        (WITH_SIZE, 8, 20),
    ],
)
def test_a_pixart_gives_what_diffusers_gives(settings, height, width, masked):
    theirs = PixArtTransformer2DModel(**settings).eval()
    randomise(theirs)
    ours = with_weights(settings, theirs.state_dict(), time_scale=1.0)
    x_t, t, text = normal(2, 3, height, width), torch.tensor([3.0, 801.0]), normal(2, 5, 20)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3]) if masked else None
    sizes = torch.tensor([[height, width]] * 2) * 8.0
    expected = theirs(
        x_t,
        encoder_hidden_states=text,
        timestep=t,
        encoder_attention_mask=None if mask is None else mask.float(),
        added_cond_kwargs={"resolution": sizes, "aspect_ratio": sizes[:, :1] / sizes[:, 1:]},
    ).sample
    found = ours(x_t, t, Condition(text=text, text_mask=mask))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_golden_weights_come_back_to_the_bit(golden):
    settings, weights, *_ = golden
    network = with_weights(settings, weights, time_scale=1.0)
    shapes = pixart.shapes_from(settings, "x")
    back = to_theirs(pixart.rules(network.config, shapes), 3, network.state_dict())
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@pytest.mark.parametrize("settings", [TINY, WITH_SIZE], ids=["plain", "with size"])
def test_diffusers_takes_our_weights_and_gives_them_back_to_the_bit(settings):
    config, shapes = pixart.config_from(settings, "x"), pixart.shapes_from(settings, "x")
    network, rules = config.build(shapes), pixart.rules(config, shapes)
    randomise(network)
    theirs = PixArtTransformer2DModel(**pixart.published_config(config, shapes))
    theirs.load_state_dict(to_theirs(rules, config.depth, network.state_dict()))
    back = to_ours(rules, config.depth, theirs.state_dict(), "x")
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(back[name], w) for name, w in network.state_dict().items())


@pytest.mark.parametrize("span", [16.0, 32.0])
@pytest.mark.parametrize("pixels", [None, 8])
@pytest.mark.parametrize("double", [False, True])
def test_a_config_comes_back_from_diffusers(span, pixels, double):
    config = PixArtConfig(
        depth=3,
        position_span=span,
        pixels_per_position=pixels,
        time_scale=-1000.0,
        double_output=double,
    )
    shapes = Shapes(channels=4, height=64, width=64, condition=ConditionShapes(text_width=4096))
    settings = pixart.published_config(config, shapes)
    assert pixart.config_from(settings, "x") == config
    assert pixart.shapes_from(settings, "x") == shapes


@pytest.mark.parametrize(
    ("size", "scale", "span"),
    [(32, None, 16.0), (64, None, 32.0), (128, None, 32.0), (32, 0.5, 32.0), (256, 4, 32.0)],
    ids=["alpha 256", "alpha 512", "alpha 1024", "sigma 256", "sigma 2048"],
)
def test_published_positions_run_to_16_or_32(size, scale, span):
    settings = {"caption_channels": 4096, "sample_size": size, "interpolation_scale": scale}
    assert pixart.config_from(settings, "x").position_span == span


@pytest.mark.parametrize(("size", "told"), [(64, None), (128, 8)])
def test_only_the_published_1024_pixels_are_told_where_the_config_does_not_say(size, told):
    settings = {"caption_channels": 4096, "sample_size": size}
    assert pixart.config_from(settings, "x").pixels_per_position == told


@pytest.mark.parametrize(
    ("pixels", "published"), [(None, 604_808_096), (8, 605_301_152)], ids=["256", "1024"]
)
def test_a_pixart_has_the_published_number_of_parameters(pixels, published):
    config = PixArtConfig(double_output=True, pixels_per_position=pixels)
    shapes = Shapes(channels=4, height=32, width=32, condition=ConditionShapes(text_width=4096))
    with torch.device("meta"):
        network = config.build(shapes)
    total, text = (sum(p.numel() for p in n.parameters()) for n in (network, network.text))
    assert text == (4096 * 1152 + 1152) + (1152 * 1152 + 1152)
    assert total == published + text  # the published number leaves out what widens the captions


def test_a_missing_and_an_extra_weight_are_listed(golden):
    settings, weights, *_ = golden
    fewer = {name: w for name, w in weights.items() if name != "scale_shift_table"}
    with pytest.raises(UserError, match="x: missing scale_shift_table"):
        with_weights(settings, fewer, time_scale=1.0)
    with pytest.raises(UserError, match="x: extra more"):
        with_weights(settings, weights | {"more": torch.ones(1)}, time_scale=1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"norm_type": "ada_norm_zero"}, "norm_type is 'ada_norm_zero'"),
        ({"attention_bias": False}, "attention_bias is False"),
        ({"cross_attention_dim": None}, "cross_attention_dim is None, where a PixArt has 48"),
        ({"caption_channels": None}, "no caption_channels"),
        ({"out_channels": 5}, "out_channels is 5, where a PixArt has 3 or 6"),
    ],
)
def test_the_config_of_another_network_is_refused(changed, message):
    for read in (pixart.config_from, pixart.shapes_from):
        with pytest.raises(UserError, match=f"^x: {message}"):
            read(TINY | changed, "x")


def test_a_network_that_diffusers_does_not_have_is_refused():
    config, shapes = pixart.config_from(TINY, "x"), pixart.shapes_from(TINY, "x")
    with pytest.raises(UserError, match=r"mlp_ratio 3\.0; diffusers' PixArt has 4 only"):
        pixart.published_config(replace(config, mlp_ratio=3.0), shapes)
