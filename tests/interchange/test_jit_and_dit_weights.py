import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowbrush.backbones import DiTConfig, JiTConfig
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import Denoiser, FlowConfig
from flowbrush.flow.guidance import Guided
from flowbrush.flow.sampling import SamplingConfig, transport
from flowbrush.interchange import dit, jit
from flowbrush.interchange.rules import to_ours, to_theirs
from flowbrush.shapes import ConditionShapes, Shapes

GOLDEN = Path(__file__).parents[1] / "golden"


def fixture(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Weights, inputs and outputs of a reference network."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    return tuple(
        {
            key[len(kind) + 1 :]: value
            for key, value in tensors.items()
            if key.startswith(kind + ".")
        }
        for kind in ("w", "in", "out")
    )


@pytest.fixture(scope="module")
def golden_jit():
    weights, given, expected = fixture("jit_a")
    settings = json.loads((GOLDEN / "jit_a.json").read_text())["config"]
    config, shapes = jit.sizes(weights, "jit_a")
    config = replace(config, context_start=settings["in_context_start"])
    network = config.build(shapes)
    network.load_state_dict(to_ours(jit.rules(config, shapes), config.depth, weights, "jit_a"))
    return network, weights, given, expected


def test_the_sizes_of_a_jit_are_read_off_its_weights(golden_jit) -> None:
    settings = json.loads((GOLDEN / "jit_a.json").read_text())["config"]
    config = golden_jit[0].config
    assert (config.depth, config.width, config.heads) == (
        settings["depth"],
        settings["hidden_size"],
        settings["num_heads"],
    )
    assert (config.bottleneck, config.label_tokens) == (
        settings["bottleneck_dim"],
        settings["in_context_len"],
    )


@torch.no_grad()
def test_a_jit_gives_the_published_output(golden_jit) -> None:
    network, _, given, expected = golden_jit
    out = network(given["z"], given["t"], Condition(label=given["y"]))
    torch.testing.assert_close(out, expected["x_pred"], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("method", ["heun", "euler"])
def test_a_jit_paints_the_published_picture(golden_jit, method: str) -> None:
    network, _, given, expected = golden_jit
    null = Condition(label=torch.tensor([10]))
    field = Guided(Denoiser(network, "data", 0.05), null, 2.9, (0.1, 1.0))
    condition = Condition(label=given["labels"])
    sampling, flow = SamplingConfig(method=method, steps=4), FlowConfig(prediction="data")
    painted = transport(field, given["noise"], condition, sampling, flow)
    wanted = expected[f"sample_{method}4_cfg2.9_0.1_1.0"]
    torch.testing.assert_close(painted, wanted, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def golden_sit():
    weights, given, expected = fixture("sit_a")
    config, shapes = dit.sizes(weights, heads=4, what="sit_a")
    network = config.build(shapes)
    network.load_state_dict(to_ours(dit.rules(config, shapes), config.depth, weights, "sit_a"))
    return network, weights, given, expected, config, shapes


@torch.no_grad()
def test_a_sit_gives_the_published_velocity(golden_sit) -> None:
    network, _, given, expected, *_ = golden_sit
    out = network(given["x"], given["t"], Condition(label=given["y"]))
    torch.testing.assert_close(out[:, :4], expected["v"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_sit_is_guided_as_published_in_three_channels(golden_sit) -> None:
    network, _, given, expected, *_ = golden_sit
    x, t, y = given["x"], given["t"], given["y"]
    guided = torch.cat(
        [
            Guided(
                Denoiser(network, "velocity", 0.05),
                Condition(label=torch.tensor([10])),
                4.0,
                channels=3,
            )(x[i : i + 1], t[i : i + 1], Condition(label=y[i : i + 1]))
            for i in range(len(x))
        ]
    )
    wanted = expected["v_cfg4"][: len(x)]
    torch.testing.assert_close(guided, wanted, atol=1e-5, rtol=0)


def test_jit_weights_come_back_to_the_bit(golden_jit) -> None:
    network, weights, *_ = golden_jit
    shapes = Shapes(channels=3, height=32, width=32, condition=ConditionShapes(labels=10))
    back = to_theirs(jit.rules(network.config, shapes), 4, network.state_dict())
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_sit_weights_come_back_to_the_bit(golden_sit) -> None:
    network, weights, _, _, config, shapes = golden_sit
    back = to_theirs(dit.rules(config, shapes), config.depth, network.state_dict())
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


IMAGENET = ConditionShapes(labels=1000)


def count(config: JiTConfig | DiTConfig, shapes: Shapes, table: int) -> int:
    """Numbers in the published checkpoint: our parameters and the fixed position table."""
    with torch.device("meta"):
        return sum(p.numel() for p in config.build(shapes).parameters()) + table


@pytest.mark.parametrize(
    ("config", "size", "published"),
    [
        (JiTConfig(), 256, 131_320_320),
        (JiTConfig(patch=32), 512, 133_387_008),
        (JiTConfig(depth=24, width=1024, heads=16, context_start=8), 256, 459_139_808),
        (
            JiTConfig(depth=32, width=1280, heads=16, bottleneck=256, context_start=10),
            256,
            952_842_048,
        ),
    ],
)
def test_a_jit_has_the_published_number_of_parameters(config, size: int, published: int) -> None:
    shapes = Shapes(channels=3, height=size, width=size, condition=IMAGENET)
    assert count(config, shapes, 256 * config.width) == published


@pytest.mark.parametrize(
    ("depth", "width", "heads", "published"),
    [
        (12, 384, 6, 32_963_360),
        (12, 768, 12, 130_512_416),
        (24, 1024, 16, 458_102_816),
        (28, 1152, 16, 675_129_632),
    ],
)
def test_a_dit_has_the_published_number_of_parameters(depth, width, heads, published) -> None:
    config = DiTConfig(depth=depth, width=width, heads=heads, double_output=True)
    shapes = Shapes(channels=4, height=32, width=32, condition=IMAGENET)
    assert count(config, shapes, 256 * width) == published


def test_a_missing_and_an_extra_key_are_listed(golden_sit) -> None:
    _, weights, _, _, config, shapes = golden_sit
    rules = dit.rules(config, shapes)
    fewer = {k: v for k, v in weights.items() if k != "t_embedder.mlp.0.bias"}
    with pytest.raises(UserError, match=r"sit_a: missing t_embedder\.mlp\.0\.bias"):
        to_ours(rules, config.depth, fewer, "sit_a")
    with pytest.raises(UserError, match="sit_a: extra a, b, c, d, e and 2 more"):
        to_ours(rules, config.depth, weights | dict.fromkeys("abcdefg", torch.ones(1)), "sit_a")


def test_a_changed_position_table_is_refused(golden_sit) -> None:
    _, weights, _, _, config, shapes = golden_sit
    learned = weights | {"pos_embed": weights["pos_embed"] + 1}
    with pytest.raises(UserError, match="pos_embed is not the fixed table"):
        to_ours(dit.rules(config, shapes), config.depth, learned, "sit_a")


@pytest.mark.parametrize("read", [lambda w: jit.sizes(w, "x"), lambda w: dit.sizes(w, 4, "x")])
def test_weights_of_another_family_are_refused(read) -> None:
    with pytest.raises(UserError, match="x: not the weights of a"):
        read({"blocks.0.weight": torch.ones(1)})


def test_a_network_with_weights_that_were_never_published_is_refused() -> None:
    given = ConditionShapes(pooled_width=8)
    shapes = Shapes(channels=4, height=8, width=8, condition=given)
    config = DiTConfig(depth=1, width=16, heads=2, pooled_text=True)
    spelt = [rule for rule in dit.rules(config, shapes) if "label" not in str(rule)]
    with pytest.raises(UserError, match=r"not among what is published: pooled\.bias"):
        to_theirs(spelt, 1, config.build(shapes).state_dict())
