"""A plan's parts by hand, and what a user is told."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from flowbrush.cli import main
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.plan.live import StepMemory
from flowbrush.plan.memory import Part, Weights, between, largest, memory, weights_of
from flowbrush.plan.plan import PlanConfig, plan
from flowbrush.plan.surroundings import surroundings
from flowbrush.plan.table import table
from flowbrush.recipes import recipe

WEIGHTS = Weights(all=1_000, trained=900, largest_block=100, outside_blocks=200)
STEP = StepMemory(kept=5_000, temporary=300, most=6_000)


def of(name: str, **train: object) -> ExperimentConfig:
    found = recipe(name)
    assert isinstance(found, ExperimentConfig)
    return replace(found, train=replace(found.train, **train))


def parts(config: ExperimentConfig, ways: int = 1) -> dict[str, float]:
    found = memory(config, WEIGHTS, STEP, 10, 64, (Part("beside", 50),), ways)
    assert found.peak == sum(part.size for part in found.parts)
    return {part.name: part.size for part in found.parts}


def test_adamw_takes_eight_bytes_a_learned_weight() -> None:
    found = parts(of("mnist", ema=(0.9, 0.99), power_ema=(0.1,)))
    assert found["AdamW's moments"] == 8 * 900
    assert found["gradients"] == 4 * 900
    assert found["weights"] == found["average 0.9"] == found["average of length 0.1"] == 4 * 1_000
    assert found["batch, noise, condition"] == 640


def test_gradients_come_while_activations_go_unless_the_batch_has_parts() -> None:
    whole = memory(of("mnist", ema=()), WEIGHTS, STEP, 0, 64, ())
    assert whole.peak == 4 * 1_000 + 8 * 900 + STEP.most
    divided = memory(of("mnist", ema=(), accumulate=2), WEIGHTS, STEP, 0, 64, ())
    assert divided.peak == 4 * 1_000 + 12 * 900 + STEP.kept + STEP.temporary


def test_sharding_divides_what_is_kept_and_gathers_blocks() -> None:
    found = parts(of("mnist", ema=(0.9,)), ways=4)
    assert found["weights"] == found["average 0.9"] == 1_000
    assert found["AdamW's moments"] == 2 * 900
    assert found["gathered blocks"] == 4 * (200 + 3 * 100)
    assert "less: gradients that come when activations have gone" not in found


def test_a_snapshot_is_all_that_a_checkpoint_holds() -> None:
    found = memory(of("mnist", ema=(0.9,)), WEIGHTS, STEP, 0, 64, ())
    assert found.snapshot == 2 * 4 * 1_000 + 8 * 900


def test_the_largest_number_that_fits_is_found() -> None:
    assert largest(lambda b: b <= 37) == 37
    assert largest(lambda b: False) == 0
    line = between((2, StepMemory(20, 4, 24)), (4, StepMemory(40, 6, 48)), 10)
    assert line == StepMemory(100, 12, 120)


def test_weights_are_told_apart_by_block() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.ModuleList([nn.Linear(2, 2), nn.Linear(4, 4)]))
    network[0].bias.requires_grad_(False)
    assert weights_of(network) == Weights(46, 41, 20, 20)


def test_known_models_have_the_published_sizes() -> None:
    found = {one.name.split("/")[-1]: one for one in surroundings(of("coyo-clip-t5"), None).frozen}
    assert found["clip-vit-large-patch14"].weights == 123_060_480
    assert found["t5-v1_1-xxl"].weights == 4_762_310_656
    assert found["t5-v1_1-xxl"].size == 2 * 4_762_310_656
    assert found["sd-vae-ft-mse"].weights == 83_653_863
    llm = surroundings(of("jit-b16-text"), None).frozen[0]
    assert llm.weights == 611_844_096 // 2 + 3_171_068_928  # without the head


def test_days_are_flops_over_what_is_reached() -> None:
    config = of("sit-s2")
    found = plan(config, PlanConfig(device="h200", utilisation=0.5), None)
    flops = 3 * found.forward + 272_722_165_760
    step = 32 * flops / (989e12 * 0.5) + found.update_seconds
    assert found.step_seconds == pytest.approx(step)
    assert found.days == pytest.approx(config.train.pictures / 256 * step / 86_400)
    moved = 4 * (10 + 3) * found.weights.all
    assert found.update_seconds == pytest.approx(moved / 4.8e12)
    recomputed = plan(of("sit-s2", recompute=True), PlanConfig(utilisation=0.5), None)
    assert recomputed.computed == found.computed + found.forward
    assert recomputed.memory.peak < found.memory.peak
    assert recomputed.most > 2 * found.most


def test_a_batch_that_does_not_fit_is_computed_in_parts() -> None:
    config = replace(of("sit-s2"), batch=replace(of("sit-s2").batch, size=2048))
    found = plan(config, PlanConfig(device="l4", count=1), None)
    assert found.accumulate is not None
    assert 1 <= found.most < 2048
    assert -(-2048 // found.accumulate) <= found.most
    assert 2048 % found.accumulate == 0
    assert "MORE THAN THERE IS" in "\n".join(table(found))


def test_this_machine_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--batch.size", "4", "--backbone.depth", "1", "--backbone.width", "32"]
    assert main(["plan", "mnist", "--device", "cpu", "--price", "2", *small]) == 0
    said = capsys.readouterr().out
    assert "of three steps of 4 pictures, measured" in said
    assert "at 2 a device hour" in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"device": "h20"}, "did you mean 'h200'"),
        ({"utilisation": 1.5}, "utilisation"),
        ({"node": 0}, "node"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        PlanConfig(**options)


def test_devices_divide_the_batch() -> None:
    with pytest.raises(UserError, match="--count 3"):
        plan(of("mnist"), PlanConfig(count=3), None)


def test_a_plan_leaves_the_generator_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    plan(of("mnist"), PlanConfig(), None)
    assert torch.rand(1) == wanted
