"""SD3 and SD3.5: published weights in and out, and what diffusers computes with them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.backbones.mmdit import MMDiT, MMDiTConfig
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.interchange import sd3
from flowbrush.interchange.rules import to_ours, to_theirs
from flowbrush.shapes import Shapes

GOLDEN = Path(__file__).parents[1] / "golden"


class Case(NamedTuple):
    """A published network: its config, its weights, and its output, noise - data, for some
    inputs."""

    settings: dict[str, Any]
    weights: dict[str, Tensor]
    x: Tensor
    timestep: Tensor
    condition: Condition
    output: Tensor

    @property
    def config(self) -> MMDiTConfig:
        return sd3.config_from(self.settings, "transformer")

    @property
    def shapes(self) -> Shapes:
        return sd3.shapes_from(self.settings, "transformer")

    def ours(self) -> MMDiT:
        network = self.config.build(self.shapes)
        rules = sd3.rules(self.config, self.shapes)
        network.load_state_dict(to_ours(rules, self.config.depth, self.weights, "transformer"))
        return network


@pytest.fixture(scope="module")
def golden() -> Case:
    tensors = load_file(GOLDEN / "sd3_a.safetensors")
    return Case(
        settings=json.loads((GOLDEN / "sd3_a.json").read_text("utf-8"))["config"],
        weights={name[2:]: w for name, w in tensors.items() if name.startswith("w.")},
        x=tensors["in.hidden_states"],
        timestep=tensors["in.timestep"],
        condition=Condition(
            text=tensors["in.encoder_hidden_states"], pooled=tensors["in.pooled_projections"]
        ),
        output=tensors["out.v"],
    )


def of_diffusers(**more: Any) -> Case:
    """Random weights in diffusers' own network, for pictures that are not square."""
    published = pytest.importorskip("diffusers").SD3Transformer2DModel
    torch.manual_seed(0)
    settings = {
        "sample_size": 12,
        "patch_size": 2,
        "in_channels": 6,
        "out_channels": 6,
        "num_layers": 4,
        "attention_head_dim": 8,
        "num_attention_heads": 5,
        "joint_attention_dim": 20,
        "caption_projection_dim": 40,
        "pooled_projection_dim": 14,
        "pos_embed_max_size": 9,
    }
    network = published(**settings, **more).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    x, timestep = torch.randn(2, 6, 10, 16), torch.tensor([250.0, 800.0])
    text, pooled = torch.randn(2, 5, 20), torch.randn(2, 14)
    with torch.no_grad():
        output = network(x, text, pooled, timestep).sample
    condition = Condition(text=text, pooled=pooled)
    return Case(dict(network.config), network.state_dict(), x, timestep, condition, output)


@pytest.fixture(scope="module", params=["golden", "diffusers, 3", "diffusers, 3.5"])
def case(request, golden: Case) -> Case:
    if request.param == "golden":
        return golden
    if request.param == "diffusers, 3":
        return of_diffusers()
    return of_diffusers(qk_norm="rms_norm", dual_attention_layers=(0, 1))


@torch.no_grad()
def test_the_network_gives_the_published_output_with_the_other_sign(case: Case) -> None:
    velocity = case.ours()(case.x, 1 - case.timestep / 1000, case.condition)
    assert_close(velocity, -case.output, atol=5e-5, rtol=1e-5)


def test_the_weights_come_back_to_the_bit(case: Case) -> None:
    rules = sd3.rules(case.config, case.shapes)
    back = to_theirs(rules, case.config.depth, case.ours().state_dict())
    assert back.keys() == case.weights.keys()
    assert all(torch.equal(back[name], case.weights[name]) for name in back)


def test_the_config_comes_back(case: Case) -> None:
    back = sd3.published_config(case.config, case.shapes)
    assert {name: case.settings.get(name, sd3.DEFAULTS[name]) for name in back} == back


def test_a_table_of_other_positions_is_refused(golden: Case) -> None:
    config = replace(golden.config, position_span=4.0)
    with pytest.raises(UserError, match=r"transformer: pos_embed\.pos_embed is not the fixed"):
        to_ours(sd3.rules(config, golden.shapes), config.depth, golden.weights, "transformer")


def test_weights_with_a_second_attention_are_refused_where_the_config_has_none(
    golden: Case,
) -> None:
    extra = golden.weights | {"transformer_blocks.0.attn2.to_q.bias": torch.zeros(64)}
    with pytest.raises(UserError, match=r"extra transformer_blocks\.0\.attn2\.to_q\.bias"):
        to_ours(sd3.rules(golden.config, golden.shapes), 3, extra, "transformer")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"dual_attention_layers": [1, 2]}, r"dual_attention_layers is \[1, 2\].* has \[0, 1\]"),
        ({"caption_projection_dim": 32}, "caption_projection_dim is 32, where an SD3 has 64"),
        ({"out_channels": 8}, "out_channels is 8, where an SD3 has 4"),
        ({"qk_norm": "layer_norm"}, "qk_norm is 'layer_norm', where an SD3 has 'rms_norm'"),
        ({"pos_embed_max_size": None}, "no pos_embed_max_size"),
    ],
)
def test_a_config_of_another_network_is_refused(golden: Case, settings, complaint: str) -> None:
    with pytest.raises(UserError, match=f"transformer: {complaint}"):
        sd3.config_from(golden.settings | settings, "transformer")


@pytest.mark.parametrize("change", [{"mlp_ratio": 3.0}, {"time_scale": 1000.0}])
def test_a_network_that_diffusers_does_not_have_is_refused(golden: Case, change) -> None:
    with pytest.raises(UserError, match=f"backbone: {next(iter(change))}.*diffusers' SD3 has"):
        sd3.published_config(replace(golden.config, **change), golden.shapes)
