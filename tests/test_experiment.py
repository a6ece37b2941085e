from dataclasses import replace
from itertools import product

import pytest
import torch
from tiny import tiny

from flowbrush.backbones import (
    BackboneConfig,
    DiTConfig,
    FluxConfig,
    JiTConfig,
    MMDiTConfig,
    PixArtConfig,
    UNetConfig,
)
from flowbrush.data import FolderConfig, ShapesWorldConfig
from flowbrush.errors import UserError
from flowbrush.experiment import build_denoiser, build_shapes, with_classes
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.loss import flow_loss
from flowbrush.processes import autocast
from flowbrush.text import LabelsConfig

CPU = torch.device("cpu")
COLOURS = LabelsConfig(names=("red", "blue"))
KINDS = ("velocity", "data", "noise")
BACKBONES: dict[str, BackboneConfig] = {
    "dit": DiTConfig(depth=2, width=16, heads=2, patch=8),
    "flux": FluxConfig(double_depth=1, single_depth=1, width=16, heads=2, patch=8, axes=(4, 2, 2)),
    "jit": JiTConfig(depth=2, width=16, heads=2, patch=8, bottleneck=8, context_start=1),
    "mmdit": MMDiTConfig(depth=2, width=16, heads=2, patch=8),
    "pixart": PixArtConfig(depth=2, width=16, heads=2, patch=8),
    "unet": UNetConfig(width=8, levels=(1, 2)),
}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("prediction", "space"), list(product(KINDS, KINDS)))
def test_every_network_learns_every_prediction_in_every_space(name, dtype, prediction, space):
    text = COLOURS if name in ("dit", "unet") else tiny().text
    flow = FlowConfig(prediction=prediction, loss_space=space)
    config = replace(tiny(), backbone=BACKBONES[name], text=text, flow=flow)
    encoder, pixels = config.text.build(CPU), config.space.build(CPU)
    denoiser = build_denoiser(config, build_shapes(config, pixels, encoder), CPU)
    torch.manual_seed(0)
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    data, noise = torch.rand(4, 3, 16, 16) * 2 - 1, torch.randn(4, 3, 16, 16)
    t = torch.tensor([1e-4, 0.3, 0.7, 1.0])
    with autocast(dtype, CPU):
        losses = flow_loss(denoiser, data, noise, t, encoder(["red", "blue"] * 2), space)
    losses.float().mean().backward()
    gradients = [w.grad for w in denoiser.parameters() if w.grad is not None]
    assert len(gradients) > 10
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_every_network_may_be_cast_to_bf16_as_a_whole(name):
    text = COLOURS if name in ("dit", "unet") else tiny().text
    config = replace(tiny(), backbone=BACKBONES[name], text=text)
    encoder, pixels = config.text.build(CPU), config.space.build(CPU)
    network = build_denoiser(config, build_shapes(config, pixels, encoder), CPU).backbone
    torch.manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    x, t, condition = torch.randn(2, 3, 16, 16), torch.rand(2), encoder(["red", "blue"])
    plain = network(x, t, condition)
    half = condition.map(lambda part: part.bfloat16() if part.is_floating_point() else part)
    cast = network.bfloat16()(x.bfloat16(), t, half)
    assert cast.dtype == torch.bfloat16
    assert (cast.float() - plain).norm() < 0.1 * plain.norm()


def test_the_first_weights_depend_on_the_seed_alone():
    config = tiny()
    encoder, pixels = config.text.build(CPU), config.space.build(CPU)
    shapes = build_shapes(config, pixels, encoder)

    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # whatever was drawn before
        seeded = replace(config, train=replace(config.train, seed=seed))
        return build_denoiser(seeded, shapes, CPU).backbone.patches.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_a_model_of_labels_needs_a_source_with_classes():
    config = replace(tiny(), text=LabelsConfig(), source=ShapesWorldConfig())
    with pytest.raises(UserError, match="captions without classes"):
        with_classes(config, config.source.build(16))


def test_class_names_that_were_chosen_stay():
    config = replace(tiny(), text=COLOURS, source=FolderConfig())
    assert with_classes(config, ShapesWorldConfig().build(16)) == config
