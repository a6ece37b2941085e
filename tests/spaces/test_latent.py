"""Latents against diffusers' own classes called by hand, with autoencoders of a few thousand
weights."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowbrush.errors import UserError
from flowbrush.randomness import derive, normal
from flowbrush.spaces import Space
from flowbrush.spaces.latent import LatentConfig, LatentSpace
from flowbrush.spaces.statistics import LatentStatistics, latent_statistics
from flowbrush.spaces.tiny import tiny_autoencoder

CPU = torch.device("cpu")
PICTURES = torch.randint(
    256, (5, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
KEYS = [3, 1, 4, 15, 9]
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def kl(channels: int = 4, **settings: object) -> nn.Module:
    sizes = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4, "latent_channels": channels}
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    return seeded(lambda: AutoencoderKL(**sizes, **blocks, **settings))


def dc() -> nn.Module:
    both = {
        "block_types": ("ResBlock", "EfficientViTBlock"),
        "block_out_channels": (8, 16),
        "layers_per_block": (1, 1),
        "qkv_multiscales": ((), (5,)),
    }
    halves = {f"{half}_{name}": v for half in ("encoder", "decoder") for name, v in both.items()}
    return seeded(
        lambda: AutoencoderDC(
            latent_channels=8, attention_head_dim=8, scaling_factor=0.41407, **halves
        )
    )


def taesd() -> nn.Module:
    sizes = {f"{half}_block_out_channels": (8,) * 4 for half in ("encoder", "decoder")}
    blocks = {f"num_{half}_blocks": (1,) * 4 for half in ("encoder", "decoder")}
    return seeded(lambda: AutoencoderTiny(**sizes, **blocks))


def over(autoencoder: nn.Module, **settings: object) -> LatentSpace:
    return LatentSpace(autoencoder, LatentConfig(**settings), CPU)


def as_floats(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


def as_bytes(decoded: Tensor) -> Tensor:
    return ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def difference(a: Tensor, b: Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_autoencoder(tmp_path_factory.mktemp("tiny"), factor=4)


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "vae"))


# -- what it computes


@pytest.mark.parametrize("channels", [4, 16, 32])
@pytest.mark.parametrize("quant", [True, False])
@torch.no_grad()
def test_a_kl_autoencoder_gives_what_it_gives_by_hand(channels, quant):
    autoencoder = kl(channels, use_quant_conv=quant, use_post_quant_conv=quant, shift_factor=0.1)
    space = over(autoencoder)
    posterior = autoencoder.encode(as_floats(PICTURES)).latent_dist
    stored = space.compress(PICTURES)
    torch.testing.assert_close(stored, posterior.parameters, atol=1e-5, rtol=1e-4)

    noise = normal(KEYS, (channels, 4, 6), CPU)
    latents = posterior.mean + posterior.std * noise
    x = space.normalize(stored, KEYS)
    torch.testing.assert_close(x, (latents - 0.1) * 0.18215, atol=1e-5, rtol=1e-4)

    by_hand = autoencoder.decode(latents).sample
    assert by_hand.std() > 0.05  # not grey alone
    assert difference(space.decode(x), as_bytes(by_hand)) <= 1


@torch.no_grad()
def test_a_dc_autoencoder_gives_what_it_gives_by_hand():
    autoencoder = dc()
    space = over(autoencoder)
    latents = autoencoder.encode(as_floats(PICTURES)).latent
    x = space.normalize(space.compress(PICTURES), KEYS)
    torch.testing.assert_close(x, latents * 0.41407, atol=1e-5, rtol=1e-4)
    assert difference(space.decode(x), as_bytes(autoencoder.decode(latents).sample)) <= 1


@torch.no_grad()
def test_a_tiny_autoencoder_gives_what_it_gives_by_hand():
    autoencoder = taesd()
    space = over(autoencoder)
    latents = autoencoder.encode(as_floats(PICTURES)).latents
    x = space.normalize(space.compress(PICTURES), KEYS)
    torch.testing.assert_close(x, latents, atol=1e-5, rtol=1e-4)
    assert difference(space.decode(x), as_bytes(autoencoder.decode(latents).sample)) <= 1


@pytest.mark.parametrize(
    ("build", "shape"), [(kl, (4, 16, 16)), (dc, (8, 32, 32)), (taesd, (4, 8, 8))]
)
def test_the_shape_is_what_compress_gives(build, shape):
    space = over(build(), sample=False)
    assert isinstance(space, Space)
    picture = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert space.shape(64) == shape == space.normalize(space.compress(picture), [0]).shape[1:]


@pytest.mark.parametrize("build", [kl, dc, taesd])
def test_slices_of_any_size_and_a_picture_alone_give_the_same(build):
    whole, alone = over(build()), over(build(), slice=1)
    stored = whole.compress(PICTURES)
    x = whole.normalize(stored, KEYS)
    torch.testing.assert_close(alone.compress(PICTURES), stored, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.compress(PICTURES[3:4]), stored[3:4], atol=1e-5, rtol=1e-4)
    assert difference(alone.decode(x), whole.decode(x)) <= 1
    assert difference(whole.decode(x[3:4]), whole.decode(x)[3:4]) <= 1


def test_the_noise_of_a_posterior_is_its_keys_in_any_batch():
    space = over(kl())
    stored = space.compress(PICTURES)
    x = space.normalize(stored, KEYS)
    assert torch.equal(space.normalize(stored, KEYS), x)
    torch.testing.assert_close(space.normalize(stored[2:3], KEYS[2:3]), x[2:3])
    assert not torch.allclose(space.normalize(stored, KEYS[::-1])[0], x[0], atol=0.01)


def test_without_sampling_the_mean_is_taken_and_keys_are_nothing():
    space = over(kl(scaling_factor=1.0), sample=False)
    stored = space.compress(PICTURES)
    assert torch.equal(space.normalize(stored, KEYS), stored[:, :4])
    assert torch.equal(space.normalize(stored, KEYS), space.normalize(stored, KEYS[::-1]))


def test_an_extreme_log_variance_is_bounded_as_in_diffusers():
    space = over(kl(scaling_factor=1.0))
    stored = torch.cat([torch.zeros(1, 4, 4, 4), torch.full((1, 4, 4, 4), 100.0)], dim=1)
    expected = normal([5], (4, 4, 4), CPU) * torch.tensor(10.0).exp()
    torch.testing.assert_close(space.normalize(stored, [5]), expected)


def test_one_key_for_many_pictures_is_refused():
    space = over(kl())
    with pytest.raises(RuntimeError):
        space.normalize(space.compress(PICTURES), [1])


# -- unit scale


@pytest.mark.parametrize(
    ("mean", "scale"),
    [((0.5,), (3.0,)), ((0.1, -2.0, 0.3, 4.0), (1.0, 2.0, 0.5, -8.0)), ((1.0, 2.0, 3.0, 4.0), ())],
)
def test_mean_and_scale_are_applied_and_undone(mean, scale):
    autoencoder = kl()
    plain = over(autoencoder, mean=(0.0,), scale=(1.0,), sample=False)
    space = over(autoencoder, mean=mean, scale=scale, sample=False)
    latents = plain.normalize(plain.compress(PICTURES), KEYS)
    x = space.normalize(space.compress(PICTURES), KEYS)
    channels = torch.tensor(mean).view(-1, 1, 1), torch.tensor(scale or (0.18215,)).view(-1, 1, 1)
    torch.testing.assert_close(x, (latents - channels[0]) * channels[1])
    assert difference(space.decode(x), plain.decode(latents)) <= 1


def test_an_autoencoder_that_knows_its_channels_statistics_is_whitened_by_them():
    mean, std = (1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 4.0, 8.0)
    space = over(kl(latents_mean=mean, latents_std=std, scaling_factor=0.5))
    assert space.mean.flatten().tolist() == [1, 2, 3, 4]
    assert space.scale.flatten().tolist() == [0.5, 0.25, 0.125, 0.0625]


@pytest.mark.parametrize("sample", [True, False])
def test_whitened_by_their_statistics_latents_have_mean_0_and_deviation_1(sample):
    autoencoder = kl()
    batches = [PICTURES[:1], PICTURES[1:4], PICTURES[4:]]
    mean, std = latent_statistics(over(autoencoder, sample=sample), batches)
    space = over(autoencoder, sample=sample, mean=mean, scale=tuple(1 / s for s in std))
    keys = [derive(0, "latent statistics", i) for i in range(5)]
    x = space.normalize(space.compress(PICTURES), keys).double()
    found = x.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(4).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found, torch.ones(4).double(), atol=1e-4, rtol=0)


def test_the_statistics_do_not_depend_on_the_batches_nor_on_mean_and_scale():
    autoencoder = kl()
    together = latent_statistics(over(autoencoder), [PICTURES])
    singly = latent_statistics(over(autoencoder, mean=(9.0,), scale=(7.0,)), PICTURES.split(1))
    for a, b in zip(together, singly, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_the_statistics_count_places_so_that_sizes_may_differ():
    space = over(kl(), sample=False)
    batches = [PICTURES, PICTURES[:, :, :8, :12]]
    places = torch.cat([space.compress(b)[:, :4].transpose(0, 1).flatten(1) for b in batches], 1)
    mean, std = latent_statistics(space, batches)
    assert mean == pytest.approx(places.mean(dim=1).tolist(), abs=1e-5)
    assert std == pytest.approx(places.std(dim=1, correction=0).tolist(), abs=1e-5)


def test_all_channels_together_have_the_mean_and_deviation_of_their_values():
    torch.manual_seed(0)
    values = torch.randn(3, 5000, dtype=torch.float64) * torch.tensor([[1.0], [2.0], [0.5]]) + 1
    by_channel = LatentStatistics(
        tuple(values.mean(dim=1).tolist()), tuple(values.std(dim=1, correction=0).tolist())
    )
    (mean,), (std,) = by_channel.together()
    assert mean == pytest.approx(float(values.mean()))
    assert std == pytest.approx(float(values.std(correction=0)))


def test_statistics_of_no_pictures_are_refused():
    with pytest.raises(UserError, match="no pictures"):
        latent_statistics(over(kl()), [])


# -- where and how it computes


def test_the_autoencoder_is_frozen_and_remembers_no_gradient():
    space = over(kl().train())
    assert not space.autoencoder.training
    assert not any(weight.requires_grad for weight in space.autoencoder.parameters())
    x = space.normalize(space.compress(PICTURES), KEYS)
    assert not x.requires_grad
    assert space.decode(x.requires_grad_()).dtype == torch.uint8


@pytest.mark.parametrize("build", [kl, dc, taesd])
def test_bf16_is_near_fp32_and_stores_fp32(build):
    exact, rough = over(build()), over(build(), dtype="bf16")
    stored = exact.compress(PICTURES)
    assert rough.compress(PICTURES).dtype == torch.float32
    assert (rough.compress(PICTURES) - stored).norm() < 0.02 * stored.norm()
    x = exact.normalize(stored, KEYS)
    assert difference(rough.decode(x), exact.decode(x)) <= 8


def test_only_what_decodes_is_on_the_device_of_decoding():
    space = LatentSpace(kl(), LatentConfig(decode_device="cpu"), torch.device("meta"))
    homes = {name: weight.device.type for name, weight in space.autoencoder.named_parameters()}
    decoding = {name for name, home in homes.items() if home == "cpu"}
    assert {name.split(".")[0] for name in decoding} == {"decoder", "post_quant_conv"}
    assert {name.split(".")[0] for name in homes.keys() - decoding} == {"encoder", "quant_conv"}


@pytest.mark.gpu
def test_a_gpu_compresses_and_the_cpu_decodes():
    space = LatentSpace(kl(), LatentConfig(decode_device="cpu", sample=False), torch.device("cuda"))
    on_cpu = over(kl(), sample=False)
    stored = space.compress(PICTURES)
    assert stored.device.type == "cuda"
    torch.testing.assert_close(stored.cpu(), on_cpu.compress(PICTURES), atol=0.01, rtol=0.01)
    pictures = space.decode(space.normalize(stored, KEYS))
    assert pictures.device.type == "cpu"
    assert difference(pictures, on_cpu.decode(on_cpu.normalize(stored.cpu(), KEYS))) <= 1


# -- from a folder


@pytest.mark.parametrize("build", [kl, dc, taesd])
def test_each_kind_comes_back_from_its_folder(build, tmp_path):
    build().save_pretrained(tmp_path / "pipeline" / "vae")
    space = LatentConfig(model=str(tmp_path / "pipeline" / "vae")).build(CPU)
    assert torch.equal(space.compress(PICTURES), over(build()).compress(PICTURES))


def test_weights_under_the_names_of_older_diffusers_are_found(damaged):
    expected = LatentConfig(model=str(damaged)).build(CPU).compress(PICTURES)
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(damaged / WEIGHTS)
    for new, old in older.items():
        weights = {name.replace(new, old): weight for name, weight in weights.items()}
    save_file(weights, damaged / WEIGHTS)
    assert torch.equal(LatentConfig(model=str(damaged)).build(CPU).compress(PICTURES), expected)


def test_half_precision_weights_are_loaded_as_fp32(damaged):
    weights = load_file(damaged / WEIGHTS)
    save_file({name: weight.half() for name, weight in weights.items()}, damaged / WEIGHTS)
    autoencoder = LatentConfig(model=str(damaged)).load(CPU)
    assert {weight.dtype for weight in autoencoder.parameters()} == {torch.float32}


def test_a_tiny_autoencoder_is_a_function_of_its_seed_alone(tmp_path):
    before = torch.get_rng_state()
    files = [
        tiny_autoencoder(tmp_path / str(i), seed=seed) / WEIGHTS for i, seed in enumerate([0, 0, 1])
    ]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other


@pytest.mark.parametrize(("channels", "factor"), [(4, 8), (16, 4), (32, 1)])
def test_a_tiny_autoencoder_has_the_shape_asked_for(channels, factor, tmp_path):
    folder = tiny_autoencoder(tmp_path, channels=channels, factor=factor)
    space = LatentConfig(model=str(folder)).build(CPU)
    assert space.shape(32) == (channels, 32 // factor, 32 // factor)


# -- errors: one line that says how to mend it


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def without_config(folder: Path) -> None:
    (folder / CONFIG).unlink()


def with_broken_config(folder: Path) -> None:
    (folder / CONFIG).write_text("{nope")


def with_a_list_for_config(folder: Path) -> None:
    (folder / CONFIG).write_text("[]")


def of_another_kind(folder: Path) -> None:
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(settings | {"_class_name": "AutoencoderKLWan"}))


def of_other_sizes(folder: Path) -> None:
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(settings | {"latent_channels": 7}))


def with_senseless_settings(folder: Path) -> None:
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(settings | {"block_out_channels": 3}))


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def with_a_weight_missing(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["decoder.conv_in.bias"]
    save_file(weights, folder / WEIGHTS)


def with_a_weight_of_nan(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["decoder.conv_in.bias"][1] = float("nan")
    save_file(weights, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_config, "no config.json"),
        (with_broken_config, "not a valid JSON"),
        (with_a_list_for_config, "of kind None"),
        (of_another_kind, "of kind AutoencoderKLWan; known are AutoencoderKL,"),
        (of_other_sizes, "shape"),
        (with_senseless_settings, "cannot be read"),
        (cut_short, "cannot be read"),
        (pickled, "safetensors"),
        (with_a_weight_missing, "lacks 1 of its weights (decoder.conv_in.bias"),
        (with_a_weight_of_nan, "decoder.conv_in.bias holds NaN or infinity"),
    ],
)
def test_a_damaged_folder_is_refused(damage, said, damaged):
    damage(damaged)
    line = refusal(lambda: LatentConfig(model=str(damaged)).build(CPU))
    assert line.startswith("space.model: ")
    assert said in line
    assert str(damaged) in line


def test_a_pipelines_folder_says_where_the_autoencoder_is(damaged):
    assert "in vae" in refusal(lambda: LatentConfig(model=str(damaged.parent)).build(CPU))


@pytest.mark.parametrize(
    ("model", "mend"),
    [
        ("nobody/nothing", "download it elsewhere"),
        ("/no/such/folder", "give one, or a hub's name"),
        ("a b", "give one, or a hub's name"),
        ("runs/nothing/autoencoder", "train that run first"),
    ],
)
def test_a_model_that_is_neither_here_nor_on_the_hub_is_refused(model, mend, monkeypatch, capfd):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = refusal(lambda: LatentConfig(model=model).build(CPU))
    assert line.startswith(f"space.model: {model} is no folder")
    assert mend in line
    assert capfd.readouterr().err == ""


def test_without_diffusers_the_way_to_install_it_is_said(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "flowbrush[hf]" in refusal(lambda: LatentConfig(model=str(folder)).build(CPU))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": (0.0, 1.0, 2.0)}, "space.mean: 3 numbers for 4 channels; give 1 or 4"),
        ({"scale": (1.0, 1.0)}, "space.scale: 2 numbers for 4 channels; give 1 or 4"),
        ({"decode_device": "gpu"}, "space.decode_device gpu: not usable here"),
        ({"slice": 0}, "slice must be 1 or more"),
        ({"scale": (0.0,)}, "scale not 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said, folder):
    assert said in refusal(lambda: replace(LatentConfig(model=str(folder)), **settings).build(CPU))


def test_a_size_that_is_no_multiple_of_the_compression_is_refused():
    assert refusal(lambda: over(kl()).shape(30)).endswith("wants a multiple of 4")


def test_a_tiny_autoencoder_compresses_by_powers_of_2_only(tmp_path):
    assert "power of 2" in refusal(lambda: tiny_autoencoder(tmp_path, factor=6))
