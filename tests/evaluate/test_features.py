"""Frozen networks read pictures as their papers' own code does, each picture for itself."""

import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

from flowbrush.data import EmojiConfig
from flowbrush.errors import UserError
from flowbrush.evaluate.efficientnet import EfficientNetConfig
from flowbrush.evaluate.features import PictureFeatures
from flowbrush.evaluate.inception import Inception, InceptionConfig, InceptionNetwork
from flowbrush.evaluate.metrics import kid
from flowbrush.evaluate.network_input import bicubic, tensorflow_bilinear
from flowbrush.evaluate.vision_transformers import (
    CLIPFeatures,
    CLIPFeaturesConfig,
    DINOv2Features,
    fitted_positions,
)
from flowbrush.evaluate.vision_transformers import DINOv2Config as DINOv2FeaturesConfig
from flowbrush.text.tiny import tiny_clip

CPU = torch.device("cpu")


def pictures(count: int, size: int = 20, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def scattered(network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights like random ones that need no generator; pictures stay apart to the last layer."""
    weights = {}
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    for i, (name, of) in enumerate(own.items()):
        numbers = (torch.arange(of.numel()).double() * 12.9898 + i).sin() * 43758.5453
        spread = (numbers.frac().abs() * 2 - 1).view(of.shape)  # -1 ... 1
        if of.ndim == 4:
            spread = spread * (6 / of[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            spread = 1 + 0.3 * spread
        else:
            spread = 0.1 * spread
        weights[name] = spread.float()
    return weights


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(scattered(InceptionNetwork()), path)
    return path


@pytest.fixture(scope="module")
def inception(inception_file) -> Inception:
    return InceptionConfig(weights=str(inception_file)).build(CPU)


@pytest.fixture(scope="module")
def efficientnet():
    return EfficientNetConfig().build(CPU)


def tiny_clip_vision(seed: int = 0) -> CLIPVisionModelWithProjection:
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        projection_dim=16,
    )
    return CLIPVisionModelWithProjection(config).eval().requires_grad_(False)


def tiny_dinov2(image_size: int = 518) -> Dinov2Model:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=14,
    )
    return Dinov2Model(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def every(inception, efficientnet) -> dict[str, PictureFeatures]:
    return {
        "inception": inception,
        "efficientnet": efficientnet,
        "clip": CLIPFeatures(tiny_clip_vision(), CPU),
        "dinov2": DINOv2Features(tiny_dinov2(), CPU),
    }


# -- all of them

NAMES = ["inception", "efficientnet", "clip", "dinov2"]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_gives_a_vector_a_picture(every, name):
    features = every[name]
    assert isinstance(features, PictureFeatures)
    found = features(pictures(3))
    assert found.shape == (3, features.width) and found.dtype == torch.float32
    assert not found.requires_grad and found.std(dim=0).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_is_the_same_to_the_last_bit_in_any_batch(every, name):
    features, some = every[name], pictures(7)
    together = features(some)
    assert torch.equal(together, torch.cat([features(part) for part in some.split(3)]))
    assert torch.equal(together.flip(0), features(some.flip(0)))


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_gives_no_vector(every, name):
    assert every[name](pictures(0)).shape == (0, every[name].width)


def test_their_names_differ(every):
    assert len({features.name for features in every.values()}) == len(NAMES)


# -- resizing


@pytest.mark.parametrize(("before", "after"), [(64, 224), (256, 99), (33, 33)])
def test_bicubic_is_pillows(before, after):
    picture = pictures(1, before)
    channels = [Image.fromarray(channel.numpy()) for channel in picture[0].float()]
    by_pillow = [c.resize((after, after), Image.Resampling.BICUBIC) for c in channels]
    expected = torch.tensor(np.stack([np.asarray(channel) for channel in by_pillow]))
    torch.testing.assert_close(bicubic(picture, after)[0], expected, atol=2e-3, rtol=0)


def test_tensorflows_bilinear_is_anchored_at_the_first_pixel():
    picture = torch.tensor([0, 40], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 2, 2)
    assert tensorflow_bilinear(picture.contiguous(), 4)[0, 0].tolist() == [[0, 20, 40, 40]] * 4


def test_tensorflows_bilinear_takes_every_second_pixel_where_it_halves():
    picture = pictures(1, 16)
    assert torch.equal(tensorflow_bilinear(picture, 8), picture[..., ::2, ::2].float())


def test_tensorflows_bilinear_leaves_the_right_size_alone():
    picture = pictures(1, 9)
    assert torch.equal(tensorflow_bilinear(picture, 9), picture.float())


# -- Inception


def test_inception_has_the_published_weights_names_and_shapes():
    own = {k: tuple(v.shape) for k, v in InceptionNetwork().state_dict().items()}
    known = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch1x1.bn.running_mean": (64,),
        "Mixed_5d.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.bn.bias": (384,),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {name: own.get(name) for name in known} == known
    names = sorted(name for name in own if not name.endswith("num_batches_tracked"))
    assert len(names) == 94 * 5 + 2
    assert hashlib.sha256("\n".join(names).encode()).hexdigest()[:12] == "ed87dd0f166a"


def test_inception_has_23_850_960_weights():
    assert sum(p.numel() for p in InceptionNetwork().parameters()) == 23_850_960


def test_inception_gives_what_torch_fidelity_gives_with_the_same_weights(inception):
    """The numbers are those of torch-fidelity 0.4.0, for the weights above."""
    ramp = (torch.arange(3 * 40 * 40) * 37 % 256).view(1, 3, 40, 40).to(torch.uint8)
    features = inception(torch.cat([ramp, 255 - ramp.flip(3)]))
    torch.testing.assert_close(
        features[:, ::256],
        torch.tensor(
            [
                [0.09116, 0.0, 0.085663, 0.084543, 0.091342, 1.642258, 0.009547, 0.000978],
                [0.063767, 0.0, 0.077481, 0.085024, 0.098578, 2.025086, 0.01274, 0.0],
            ]
        ),
        atol=1e-5,
        rtol=1e-5,
    )
    torch.testing.assert_close(
        inception.logits(features)[:, :3],
        torch.tensor([[-4.033685, -2.539862, -0.567411], [-4.98478, -2.724815, -0.535311]]),
        atol=1e-5,
        rtol=1e-5,
    )


def test_inception_does_not_count_the_padding_of_an_average_pool():
    block = InceptionNetwork().eval().requires_grad_(False).Mixed_5b
    x = torch.rand(1, 192, 5, 5)
    found = block(x)[:, -32:]
    mean = avg_pool2d(x, 3, 1, 1) / avg_pool2d(torch.ones_like(x), 3, 1, 1)
    expected = conv2d(mean, block.branch_pool.conv.weight).div((1 + 1e-3) ** 0.5).relu()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("name", "pool"), [("Mixed_7b", nn.AvgPool2d), ("Mixed_7c", nn.MaxPool2d)])
def test_only_the_last_block_takes_the_highest_of_its_neighbours(name, pool):
    block = getattr(InceptionNetwork().eval().requires_grad_(False), name)
    x = torch.rand(1, block.branch1x1.conv.in_channels, 3, 3)
    middle = pool(3)(x)
    expected = conv2d(middle, block.branch_pool.conv.weight).div((1 + 1e-3) ** 0.5).relu()
    torch.testing.assert_close(block(x)[:, -192:, 1:2, 1:2], expected)


def test_clean_resizing_has_another_name_and_other_vectors(inception_file, inception):
    clean = InceptionConfig(weights=str(inception_file), resize="clean").build(CPU)
    assert (inception.name, clean.name) == (
        "Inception 2015, legacy resizing",
        "Inception 2015, clean resizing",
    )
    some = pictures(1, 320)
    assert not torch.allclose(clean(some), inception(some), atol=1e-3)


def test_weights_without_counted_batches_and_with_them_are_the_same(inception, tmp_path):
    counted = scattered(InceptionNetwork())
    counted |= {
        k: v for k, v in InceptionNetwork().state_dict().items() if k.endswith("batches_tracked")
    }
    torch.save(counted, tmp_path / "counted.pth")
    other = InceptionConfig(weights=str(tmp_path / "counted.pth")).build(CPU)
    assert torch.equal(other(pictures(1)), inception(pictures(1)))


def saved(state, path) -> InceptionConfig:
    torch.save(state, path)
    return InceptionConfig(weights=str(path))


def test_weights_of_another_network_are_refused(tmp_path):
    state, path = scattered(InceptionNetwork()), tmp_path / "other.pth"
    thousand = saved(state | {"fc.weight": torch.zeros(1000, 2048)}, path)
    with pytest.raises(UserError, match=r"fc\.weight is \(1000, 2048\), not \(1008, 2048\)"):
        thousand.build(CPU)
    more = saved(state | {"AuxLogits.fc.bias": torch.zeros(9)}, path)
    with pytest.raises(UserError, match=r"it has AuxLogits\.fc\.bias besides"):
        more.build(CPU)
    with pytest.raises(UserError, match=r"it lacks Conv2d_1a_3x3\.conv\.weight"):
        saved({"a": torch.zeros(1)}, path).build(CPU)
    with pytest.raises(UserError, match="no state dict"):
        saved([1, 2], path).build(CPU)


def test_a_missing_or_broken_file_of_weights_is_told_in_one_line(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=r"^inception\.weights: there is no file .*; see https\S+$"):
        InceptionConfig(weights=str(path)).build(CPU)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"^inception\.weights: \S+ cannot be read \(.*\)$"):
        InceptionConfig(weights=str(path)).build(CPU)


def test_weights_that_would_run_code_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": io.BytesIO}, path)
    with pytest.raises(UserError, match="cannot be read"):
        InceptionConfig(weights=str(path)).build(CPU)


def test_without_a_network_the_user_is_told_to_give_a_file(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match=r"\(no route to host\); download https\S+ elsewhere"):
        InceptionConfig().build(CPU)


class Script(nn.Module):
    """With the calls of StyleGAN's file, and as many features and classes."""

    def __init__(self, width: int = 2048) -> None:
        super().__init__()
        self.output = nn.Linear(width, 1008)

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        means = img.float().mean(dim=(1, 2, 3))
        features = means[:, None].expand(-1, self.output.in_features)
        return features if return_features else self.output(features).softmax(dim=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_file_is_called_as_stylegans_is(tmp_path):
    script, path = Script(), tmp_path / "inception.pt"
    torch.jit.script(script).save(str(path))
    features = InceptionConfig(weights=str(path)).build(CPU)
    some = pictures(3)
    assert features.name == "Inception 2015, legacy resizing"
    found = features(some)
    torch.testing.assert_close(found[:, 5], some.float().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(features.logits(found), found @ script.output.weight.detach().T)
    with pytest.raises(UserError, match=r"^features\.resize: inception\.pt is TorchScript"):
        InceptionConfig(weights=str(path), resize="clean").build(CPU)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_another_torchscript_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.jit.script(Script(width=64)).save(str(path))
    with pytest.raises(UserError, match="is not FID's Inception"):
        InceptionConfig(weights=str(path)).build(CPU)
    torch.jit.script(nn.Linear(3, 3)).save(str(path))
    with pytest.raises(UserError, match="cannot be used"):
        InceptionConfig(weights=str(path)).build(CPU)


# -- CLIP and DINOv2


def test_a_clip_vector_is_what_transformers_gives_of_unit_length():
    model, some = tiny_clip_vision(), pictures(2, 28)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    embeds = model(pixel_values=(some / 255 - mean) / std).image_embeds
    expected = embeds / embeds.norm(dim=1, keepdim=True)
    torch.testing.assert_close(CLIPFeatures(model, CPU)(some), expected, atol=1e-5, rtol=1e-5)


def test_two_clips_have_two_names():
    names = [CLIPFeatures(tiny_clip_vision(seed), CPU).name for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("CLIP, 16 wide, 28 px (")


def test_a_clip_is_read_from_a_folder_with_its_captions(tmp_path):
    tiny_clip_vision().save_pretrained(tmp_path / "vision")
    found = CLIPFeaturesConfig(model=str(tmp_path / "vision")).build(CPU)
    assert torch.equal(found(pictures(2)), CLIPFeatures(tiny_clip_vision(), CPU)(pictures(2)))
    tiny_clip(tmp_path / "text", tmp_path / "text", projection=16)
    text = CLIPFeaturesConfig(model=str(tmp_path / "text")).build_text(CPU)
    assert text(["a fox", "a red fox"]).pooled.shape == (2, found.width)


def test_the_class_token_is_what_transformers_gives_where_positions_fit():
    model, some = tiny_dinov2(image_size=224), pictures(2, 224)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = model(pixel_values=(some / 255 - mean) / std).last_hidden_state[:, 0]
    torch.testing.assert_close(DINOv2Features(model, CPU)(some), expected, atol=1e-5, rtol=1e-5)


def test_positions_are_nearly_those_of_transformers():
    model = tiny_dinov2()
    grid = torch.linspace(-1, 1, 37)
    smooth = torch.stack([grid[:, None].expand(37, 37), grid.expand(37, 37)] * 16, dim=2)
    known = torch.cat([torch.full((1, 1, 32), 9.0), smooth.reshape(1, 37 * 37, 32)], dim=1)
    model.embeddings.position_embeddings = nn.Parameter(known)
    expected = model.embeddings.interpolate_pos_encoding(torch.zeros(1, 257, 32), 224, 224)
    found = fitted_positions(known, 16)
    assert found.shape == (1, 257, 32) and (found[0, 0] == 9).all()
    torch.testing.assert_close(found, expected.detach(), atol=0.02, rtol=0)
    by_size = interpolate(smooth.movedim(2, 0)[None], (16, 16), mode="bicubic")
    assert not torch.equal(found[:, 1:], by_size.movedim(1, 3).flatten(1, 2))


@pytest.mark.parametrize("config", [CLIPFeaturesConfig, DINOv2FeaturesConfig])
def test_a_model_of_another_kind_is_refused(config, tmp_path):
    other = tiny_dinov2() if config is CLIPFeaturesConfig else tiny_clip_vision()
    other.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^\w+\.model: \S+ is a \w+, not a (clip|dinov2)$"):
        config(model=str(tmp_path)).build(CPU)


def test_a_dinov2_is_read_from_a_folder(tmp_path):
    tiny_dinov2().save_pretrained(tmp_path)
    found = DINOv2FeaturesConfig(model=str(tmp_path)).build(CPU)
    assert torch.equal(found(pictures(1)), DINOv2Features(tiny_dinov2(), CPU)(pictures(1)))


# -- EfficientNet, with its real weights


def test_a_missing_package_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"pip install 'flowbrush\[features\]'$"):
        EfficientNetConfig().build(CPU)


def blurred(some: torch.Tensor, passes: int) -> torch.Tensor:
    kernel = torch.ones(3, 1, 3, 3) / 9
    x = some.float()
    for _ in range(passes):
        x = conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    return x.round().to(torch.uint8)


def noisy(some: torch.Tensor, deviation: float) -> torch.Tensor:
    noise = torch.randn(some.shape, generator=torch.Generator().manual_seed(0))
    return (some + deviation * noise).round().clamp(0, 255).to(torch.uint8)


def test_distances_order_known_distortions(efficientnet):
    source = EmojiConfig(concepts=96).build(64)
    emoji = torch.stack([torch.tensor(source[i].picture) for i in range(96)]).permute(0, 3, 1, 2)
    real, clean = emoji[::2], emoji[1::2]
    versions = {
        "clean": clean,
        "blur": blurred(clean, 1),
        "more blur": blurred(clean, 4),
        "noise": noisy(clean, 12),
        "more noise": noisy(clean, 40),
    }
    of_real = efficientnet(real)
    found = {name: efficientnet(version) for name, version in versions.items()}
    value = {name: kid(of, of_real, efficientnet.name).value for name, of in found.items()}
    assert value["clean"] < value["blur"] < value["more blur"]
    assert value["clean"] < value["noise"] < value["more noise"]
