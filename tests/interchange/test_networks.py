"""A network is found under whatever its trainer wrapped around it, and what is refused is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowbrush.errors import UserError
from flowbrush.interchange.files import read_weights
from flowbrush.interchange.networks import find_networks
from flowbrush.interchange.published import read_published
from flowbrush.interchange.runs import import_run

GOLDEN = Path(__file__).parents[1] / "golden"


def jit() -> dict[str, Tensor]:
    tensors = load_file(GOLDEN / "jit_a.safetensors")
    return {k[2:]: v for k, v in tensors.items() if k.startswith("w.")}


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: weight for name, weight in weights.items()}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(found[k].equal(wanted[k]) for k in wanted)


@pytest.mark.parametrize(
    "prefix",
    ["", "net.", "module.net.", "_orig_mod.net.", "net._orig_mod.", "module._orig_mod.net.",
     "model.diffusion_model.", "_forward_module.model.", "a.name.of.their.own."],
)  # fmt: skip
@pytest.mark.parametrize("container", [(), ("model",), ("state_dict",), ("a", "module")])
def test_wrappers_of_any_name_and_nesting_are_taken_off(
    prefix: str, container: tuple[str, ...]
) -> None:
    contents: dict[str, Any] = under(prefix, jit())
    for name in reversed(container):
        contents = {name: contents, "epoch": 3}
    found = find_networks(contents, "a.pth")
    assert same(found.model, jit())
    assert found.averages == {}


def test_what_torch_writes_amid_the_names_is_taken_off() -> None:
    between = {
        name.replace("blocks.0.", "blocks.0._orig_mod.").replace(
            "blocks.1.", "blocks.1._checkpoint_wrapped_module._fsdp_wrapped_module."
        ): weight
        for name, weight in jit().items()
    }
    assert same(find_networks(under("module.", between), "a.pth").model, jit())
    twice = {**jit(), "_orig_mod.pos_embed": torch.zeros(1)}
    with pytest.raises(UserError, match="pos_embed is there twice, once as _orig_mod"):
        find_networks(twice, "a.pth")


@pytest.mark.parametrize(
    "place", ["ema", "model_ema", "ema_0.9999", "params_ema", "state_dict.ema_model", "swa"]
)
def test_an_average_is_known_by_where_it_is(place: str) -> None:
    average = {name: weight + 1 for name, weight in jit().items()}
    optimizer = {
        "state": {0: {"exp_avg": torch.zeros(2)}},
        "x_embedder.proj1.weight": torch.ones(1),
    }
    named = under("module.", jit()) | {"n_averaged": torch.tensor(3)}
    contents = {"net": named, "optimizer": optimizer} | under(f"{place}.", average)
    found = find_networks(contents, "a.pth")
    assert same(found.model, jit())
    assert list(found.averages) == [place]
    assert same(found.averages[place], average)
    alone = find_networks({place: average}, "a.pth")
    assert same(alone.model, average)


def test_averages_are_in_the_order_of_their_names() -> None:
    averages = {f"model_ema{n}": {k: v + n for k, v in jit().items()} for n in (2, 1)}
    found = find_networks({"model": under("net.", jit()), **averages}, "a.pth").averages
    assert [float((w["t_embedder.mlp.0.bias"] - jit()["t_embedder.mlp.0.bias"])[0].round()) for w in
            found.values()] == [1, 2]  # fmt: skip


def test_two_networks_in_one_file_are_refused_by_name() -> None:
    with pytest.raises(
        UserError, match=r"a\.pth: several networks, under 'student\.', 'teacher\.'"
    ):
        find_networks({"student": jit(), "teacher": jit()}, "a.pth")


def refusal(contents: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        find_networks(contents, "a.pth")
    return str(error.value)


def test_what_is_not_such_a_network_is_told_for_what_it_is() -> None:
    one = torch.zeros(1)
    assert "no weights by name" in refusal({"epoch": 3})
    assert "a LoRA" in refusal({"transformer_blocks.0.attn.to_q.lora_A.weight": one})
    assert "SD3 in its authors' layout" in refusal(
        {"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": one}
    )
    assert "DiT in diffusers' layout" in refusal(
        {"transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight": one}
    )
    told = refusal({f"layer{i}.weight": one for i in range(9)})
    assert "its 9 keys begin with layer0.weight, layer1.weight, layer2.weight" in told
    assert "layer5" not in told


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_refused_by_name(number: float, dtype: torch.dtype) -> None:
    weights = {name: weight.to(dtype) for name, weight in jit().items()}
    weights["blocks.1.attn.proj.weight"][3, 5] = number
    told = refusal({"model": jit(), "model_ema1": under("net.", weights)})
    assert told.startswith("a.pth: model_ema1.net: blocks.1.attn.proj.weight holds NaN or infinity")


def test_quantised_weights_are_refused_and_eight_bit_floats_are_widened() -> None:
    whole = jit() | {"blocks.0.attn.proj.weight": torch.zeros(4, 4, dtype=torch.int8)}
    assert "blocks.0.attn.proj.weight is int8, so it is quantised" in refusal(whole)
    small = {k: v.to(torch.float8_e4m3fn) for k, v in jit().items()}
    wide = find_networks(small, "a.pth").model
    assert all(wide[k].dtype == torch.bfloat16 for k in wide)
    assert all(wide[k].float().equal(small[k].float()) for k in wide)


def test_a_missing_key_and_another_family_are_named(tmp_path: Path) -> None:
    fewer = {k: v for k, v in jit().items() if k != "pos_embed"}
    torch.save({"model": under("module.net.", fewer)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="not the weights of a JiT, which have 'pos_embed'"):
        import_run("jit", tmp_path / "a.pth", tmp_path / "run")
    with pytest.raises(UserError, match=r"a DiT or SiT, .*; it looks like jit"):
        import_run("sit", tmp_path / "a.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metadata_of_safetensors_changes_nothing(tmp_path: Path) -> None:
    extra = {"format": "pt", "modelspec.architecture": "x", "note": "ä" * 1000}
    save_file(under("model.", jit()), tmp_path / "a.safetensors", metadata=extra)
    assert same(read_published(tmp_path / "a.safetensors").model, jit())


def test_a_part_of_several_files_is_told_from_the_whole(tmp_path: Path) -> None:
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weights = list(jit().items())
    for name, part in zip(names, (weights[:9], weights[9:]), strict=True):
        save_file(dict(part), tmp_path / name)
    with pytest.raises(UserError, match=r"00001-of-00002\.safetensors: one file of 2; give their"):
        read_weights(tmp_path / names[0])
    where = {k: names[i >= 9] for i, (k, _) in enumerate(weights)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert same(read_published(index).model, jit())
    second = tmp_path / names[1]
    second.write_bytes(second.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"00002-of-00002\.safetensors: cut short"):
        read_weights(index)


def test_a_pointer_of_git_lfs_is_told_from_weights(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "a.safetensors").write_text(pointer)
    with pytest.raises(UserError, match="a pointer of Git LFS"):
        read_weights(tmp_path / "a.safetensors")


def moved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight + 1 for name, weight in weights.items()}


def trained(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**moved(weights), "pos_embed": weights["pos_embed"]}


@pytest.mark.parametrize("fixed", [True, False], ids=["all", "trained"])
def test_an_average_that_is_a_list_is_read_in_the_order_of_the_model(fixed: bool) -> None:
    average = moved(jit()) if fixed else trained(jit())
    listed = [w for name, w in average.items() if fixed or name != "pos_embed"]
    contents = {"model": jit(), "ema": {"decay": 0.99, "shadow_params": listed}}
    found = find_networks(contents, "a.pth")
    assert same(found.model, jit())
    assert same(found.averages["ema.shadow_params"], average)
    assert found.unread == ()


@pytest.mark.parametrize("fixed", [True, False], ids=["all", "trained"])
def test_an_average_whose_names_have_lost_their_dots_is_read(fixed: bool) -> None:
    average = moved(jit()) if fixed else trained(jit())
    dotless = {
        f"model_ema.net{name.replace('.', '')}": w
        for name, w in average.items()
        if fixed or name != "pos_embed"
    }
    extra = {"model_ema.decay": torch.tensor(0.99), "model_ema.num_updates": torch.tensor(7)}
    found = find_networks({"state_dict": {**under("net.", jit()), **dotless, **extra}}, "a.ckpt")
    assert same(found.model, jit())
    assert same(found.averages["state_dict.model_ema"], average)
    assert found.unread == ()


def test_an_average_that_does_not_fit_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "jit.pth"
    listed = list(moved(jit()).values())
    for shadow in (listed[:-2], listed[::-1]):
        torch.save({"model": jit(), "ema": {"shadow_params": shadow}}, path)
        assert read_published(path).networks.unread == ("ema.shadow_params",)
    lines = import_run("jit", path, tmp_path / "run")
    told = [line for line in lines if "was not read" in line]
    assert len(told) == 1
    assert "an average under ema.shadow_params was not read" in told[0]
    assert "the model's own weights stand for it" in told[0]
    odd = {**under("net.", jit()), "ema.netb": torch.ones(3)}
    assert find_networks(odd, "a.pth").unread == ("ema",)
    adam = {"model": jit(), "gen": {"state": {0: {"exp_avg": torch.ones(3)}}}}
    assert find_networks(adam, "a.pth").unread == ()


def test_of_more_averages_than_a_run_has_those_that_are_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "jit.pth"
    torch.save({"model": jit()} | {f"ema{i}": trained(jit()) for i in range(3)}, path)
    lines = import_run("jit", path, tmp_path / "run")
    assert "averages under ema0, ema1, ema2; read: ema0, ema1" in lines
