"""Flux: published weights in and out in both layouts, and what diffusers computes with them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.backbones.flux import Flux, FluxConfig
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.interchange import flux
from flowbrush.interchange.networks import Networks
from flowbrush.interchange.published import Choices, Published
from flowbrush.interchange.rules import check_shapes, to_ours, to_theirs
from flowbrush.shapes import Shapes

GOLDEN = Path(__file__).parents[1] / "golden"
ONE = 1  # the rules are spelt out for each block already


def unpacked(tokens: Tensor, ids: Tensor) -> Tensor:
    """Pictures from tokens of 2 x 2 values, (channel, row, column), at places (0, row, column)."""
    rows, columns = (ids.long().amax(dim=0) + 1)[1:].tolist()
    patches = tokens.new_full((len(tokens), rows, columns, tokens.shape[2]), torch.nan)
    patches[:, ids[:, 1].long(), ids[:, 2].long()] = tokens
    return rearrange(patches, "b h w (c p q) -> b c (h p) (w q)", p=2, q=2)


class Case(NamedTuple):
    """A published network: its config, its weights, and its output, noise - data, for inputs."""

    settings: dict[str, Any]
    weights: dict[str, Tensor]
    x: Tensor
    timestep: Tensor
    condition: Condition
    output: Tensor

    @property
    def config(self) -> FluxConfig:
        return flux.config_from(self.settings, "transformer")

    @property
    def shapes(self) -> Shapes:
        return flux.shapes_from(self.settings, "transformer")

    def ours(self) -> Flux:
        network = self.config.build(self.shapes)
        weights = to_ours(flux.rules(self.config), ONE, self.weights, "transformer")
        network.load_state_dict(weights)
        return network


@pytest.fixture(scope="module")
def golden() -> Case:
    tensors = load_file(GOLDEN / "flux_a.safetensors")
    ids = tensors["in.img_ids"]
    return Case(
        settings=json.loads((GOLDEN / "flux_a.json").read_text("utf-8"))["config"],
        weights={name[2:]: w for name, w in tensors.items() if name.startswith("w.")},
        x=unpacked(tensors["in.hidden_states"], ids),
        timestep=tensors["in.timestep"],
        condition=Condition(
            text=tensors["in.encoder_hidden_states"], pooled=tensors["in.pooled_projections"]
        ),
        output=unpacked(tensors["out.v"], ids),
    )


def of_diffusers(guidance: bool) -> Case:
    """Random weights in diffusers' own network, for pictures that are not square."""
    published = pytest.importorskip("diffusers").FluxTransformer2DModel
    torch.manual_seed(0)
    network = published(
        in_channels=12,
        num_layers=1,
        num_single_layers=3,
        attention_head_dim=20,
        num_attention_heads=2,
        joint_attention_dim=18,
        pooled_projection_dim=14,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 10),
    ).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    rows, columns, timestep = 3, 5, torch.tensor([0.25, 0.8])
    ids = torch.cartesian_prod(*(torch.arange(side).float() for side in (1, rows, columns)))
    tokens, text, pooled = (torch.randn(2, *n) for n in [(rows * columns, 12), (6, 18), (14,)])
    with torch.no_grad():
        output = network(
            tokens,
            text,
            pooled,
            timestep,
            ids,
            torch.zeros(6, 3),
            guidance=torch.full((2,), 3.5) if guidance else None,
        ).sample
    return Case(
        dict(network.config),
        network.state_dict(),
        unpacked(tokens, ids),
        timestep,
        Condition(text=text, pooled=pooled),
        unpacked(output, ids),
    )


@pytest.fixture(scope="module", params=["golden", "diffusers, schnell", "diffusers, dev"])
def case(request: pytest.FixtureRequest, golden: Case) -> Case:
    return golden if request.param == "golden" else of_diffusers(request.param.endswith("dev"))


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name].view(torch.int32), other[name].view(torch.int32)) for name in one
    )


@torch.no_grad()
def test_the_network_gives_the_published_output_with_the_other_sign(case: Case) -> None:
    velocity = case.ours()(case.x, 1 - case.timestep, case.condition)
    assert_close(velocity, -case.output, atol=1e-5, rtol=1e-5)


def test_diffusers_weights_come_back_to_the_bit(case: Case) -> None:
    back = to_theirs(flux.rules(case.config), ONE, case.ours().state_dict())
    assert same_bits(back, case.weights)


def test_diffusers_weights_come_back_to_the_bit_through_the_authors_layout(case: Case) -> None:
    layout = flux.authors_rules(case.config)
    ours = case.ours().state_dict()
    assert same_bits(to_ours(layout, ONE, to_theirs(layout, ONE, ours), "flux"), ours)


def test_the_authors_weights_come_back_to_the_bit(case: Case) -> None:
    layout = flux.authors_rules(case.config)
    published = {
        name: torch.randn(weight.shape)
        for name, weight in to_theirs(layout, ONE, case.ours().state_dict()).items()
    }
    assert same_bits(to_theirs(layout, ONE, to_ours(layout, ONE, published, "flux")), published)


def test_the_authors_layout_holds_the_weights_of_diffusers(golden: Case) -> None:
    authors = to_theirs(flux.authors_rules(golden.config), ONE, golden.ours().state_dict())

    def joined(*names: str) -> Tensor:
        return torch.cat([golden.weights[name] for name in names])

    double, single = "transformer_blocks.1.attn", "single_transformer_blocks.1"
    qkv = [f"{single}.attn.to_{x}" for x in "qkv"]
    scale, shift = golden.weights["norm_out.linear.weight"].chunk(2)
    for name, wanted in {
        "time_in.in_layer.weight": joined("time_text_embed.timestep_embedder.linear_1.weight"),
        "vector_in.out_layer.bias": joined("time_text_embed.text_embedder.linear_2.bias"),
        "double_blocks.1.img_mod.lin.bias": joined("transformer_blocks.1.norm1.linear.bias"),
        "double_blocks.1.img_attn.qkv.bias": joined(*(f"{double}.to_{x}.bias" for x in "qkv")),
        "double_blocks.1.txt_attn.qkv.weight": joined(
            *(f"{double}.add_{x}_proj.weight" for x in "qkv")
        ),
        "double_blocks.1.txt_attn.norm.key_norm.scale": joined(f"{double}.norm_added_k.weight"),
        "double_blocks.1.txt_attn.proj.weight": joined(f"{double}.to_add_out.weight"),
        "double_blocks.1.txt_mlp.2.bias": joined("transformer_blocks.1.ff_context.net.2.bias"),
        "single_blocks.1.linear1.weight": joined(
            *(f"{name}.weight" for name in (*qkv, f"{single}.proj_mlp"))
        ),
        "single_blocks.1.linear2.weight": joined(f"{single}.proj_out.weight"),
        "single_blocks.1.norm.query_norm.scale": joined(f"{single}.attn.norm_q.weight"),
        "final_layer.adaLN_modulation.1.weight": torch.cat([shift, scale]),
        "final_layer.linear.weight": joined("proj_out.weight"),
    }.items():
        assert torch.equal(authors[name], wanted), name


@pytest.mark.parametrize(("guidance", "keys"), [(None, 1156), (3.5, 1160)], ids=["schnell", "dev"])
def test_both_layouts_have_the_names_and_shapes_of_diffusers(guidance, keys: int) -> None:
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    config, shapes = FluxConfig(guidance=guidance), flux.shapes_from({}, "transformer")
    with torch.device("meta"):
        ours = config.build(shapes).state_dict()
        published = pytest.importorskip("diffusers").FluxTransformer2DModel(
            guidance_embeds=guidance is not None
        )
        weights = to_theirs(flux.rules(config), ONE, ours)
        authors = to_theirs(flux.authors_rules(config), ONE, ours)
        converted = single_file.convert_flux_transformer_checkpoint_to_diffusers(dict(authors))
    check_shapes("transformer", weights, published.state_dict())
    check_shapes("authors", converted, published.state_dict())
    assert len(weights) == len(converted) == len(published.state_dict()) == keys


def test_the_diffusers_config_comes_back(case: Case) -> None:
    back = flux.published_config(case.config, case.shapes)
    wanted = flux.DEFAULTS | case.settings
    assert back == {name: wanted[name] for name in back} | {
        "axes_dims_rope": tuple(wanted["axes_dims_rope"])
    }


def test_the_sizes_are_read_off_the_authors_weights(case: Case) -> None:
    authors = to_theirs(flux.authors_rules(case.config), ONE, case.ours().state_dict())
    sizes = flux.authors_sizes(authors, "flux", axes=case.config.axes)
    assert sizes == (case.config, case.shapes)


def test_weights_of_another_family_are_refused() -> None:
    with pytest.raises(UserError, match="x: not the weights of a Flux in its authors' layout"):
        flux.authors_sizes({"blocks.0.weight": torch.ones(1)}, "x")


def test_a_guidance_embedding_is_refused_where_the_config_has_none(golden: Case) -> None:
    name = "time_text_embed.guidance_embedder.linear_1.bias"
    with pytest.raises(UserError, match=f"transformer: extra {name}"):
        extra = golden.weights | {name: torch.zeros(64)}
        to_ours(flux.rules(golden.config), ONE, extra, "transformer")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"patch_size": 2}, "patch_size is 2, where a Flux has 1"),
        ({"in_channels": 18}, "in_channels is 18, which is no multiple of 4"),
        ({"out_channels": 8}, "out_channels is 8, where a Flux has 16"),
        ({"axes_dims_rope": [4, 4, 4, 4]}, r"axes_dims_rope is \(4, 4, 4, 4\), where a Flux has 3"),
    ],
)
def test_a_config_of_another_network_is_refused(golden: Case, settings, complaint: str) -> None:
    with pytest.raises(UserError, match=f"transformer: {complaint}"):
        flux.config_from(golden.settings | settings, "transformer")


@pytest.mark.parametrize("layout", [flux.rules, flux.authors_rules])
@pytest.mark.parametrize(
    "change", [{"mask_text": True}, {"patch": 1}, {"theta": 100.0}, {"time_scale": 1000.0}]
)
def test_a_network_that_is_not_published_cannot_be_exported(golden: Case, layout, change) -> None:
    with pytest.raises(UserError, match=f"backbone: {next(iter(change))}"):
        layout(replace(golden.config, **change))


@pytest.mark.parametrize("change", [{"mask_text": True}, {"mlp_ratio": 3.0}])
def test_a_network_that_diffusers_does_not_have_has_no_diffusers_config(
    golden: Case, change
) -> None:
    with pytest.raises(UserError, match=f"backbone: {next(iter(change))}"):
        flux.published_config(replace(golden.config, **change), golden.shapes)


def test_the_average_beside_a_model_is_the_runs_average(golden: Case) -> None:
    average = {name: weight + 1 for name, weight in golden.weights.items()}
    networks = Networks(golden.weights, {"ema": average})
    published = Published(Path("flux.pth"), {}, networks, golden.settings)
    weights = flux.imported(published, Choices(size=64)).weights
    assert torch.equal(weights["model"]["text.weight"], golden.weights["context_embedder.weight"])
    assert torch.equal(weights["ema_0.9999"]["text.weight"], average["context_embedder.weight"])
