"""Configs survive the way to JSON and back; what does not fit is refused with its path."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flowbrush import config_io
from flowbrush.backbones import DiTConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes import RECIPES

EMOJI = RECIPES["emoji"]()


@dataclass(frozen=True)
class Inner:
    width: int


@dataclass(frozen=True)
class Frame:
    inner: Inner


def changed(path: str, value: Any) -> dict[str, Any]:
    """The emoji recipe as JSON, with another value at a dotted path."""
    data = json.loads(json.dumps(config_io.to_json(EMOJI)))
    *parents, name = path.split(".")
    inner = data
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    return data


def read(data: Any) -> ExperimentConfig:
    return config_io.from_json(ExperimentConfig, data, "config.json")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_from_json_as_it_was(name):
    config = RECIPES[name]()
    data = json.loads(json.dumps(config_io.to_json(config)))
    assert config_io.from_json(type(config), data, "config.json") == config


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_from_a_file_as_it_was(tmp_path, name):
    config_io.save(RECIPES[name](), tmp_path / "config.json")
    assert config_io.load(type(RECIPES[name]()), tmp_path / "config.json") == RECIPES[name]()


def test_each_object_carries_the_name_of_its_class():
    data = config_io.to_json(EMOJI)
    assert (data["kind"], data["backbone"]["kind"]) == ("ExperimentConfig", "JiTConfig")


def test_a_field_that_is_left_out_takes_its_default():
    data = config_io.to_json(EMOJI)
    del data["train"]["clip"]
    assert read(data) == EMOJI


def test_an_int_for_a_float_is_read_as_a_float():
    assert type(read(changed("train.lr", 1)).train.lr) is float


@pytest.mark.parametrize("value", [None, 256])
def test_an_optional_field_takes_null_and_a_value(value):
    assert read(changed("flow.times.shift_reference", value)).flow.times.shift_reference == value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("siez", 32, "config.json: unknown field 'siez' of ExperimentConfig; did you mean 'size'?"),
        (
            "backbone.widht",
            64,
            "config.json: backbone: unknown field 'widht' of JiTConfig; did you mean 'width'?",
        ),
        ("flow.times.xyz", 0, "config.json: flow: times: unknown field 'xyz' of TimesConfig"),
    ],
)
def test_an_unknown_field_is_refused_with_its_path_and_the_nearest_name(path, value, message):
    with pytest.raises(UserError) as refusal:
        read(changed(path, value))
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("size", "32", "config.json: size: '32' is not a int"),
        ("size", 32.0, "config.json: size: 32.0 is not a int"),
        ("size", True, "config.json: size: True is not a int"),
        ("size", None, "config.json: size: None is not a int"),
        ("name", 7, "config.json: name: 7 is not a str"),
        ("train.lr", "1e-3", "config.json: train: lr: '1e-3' is not a float"),
        ("train.compile", 1, "config.json: train: compile: 1 is not a bool"),
        ("train.betas", 0.9, "config.json: train: betas: 0.9 is not a list"),
        ("train.betas", [0.9], "config.json: train: betas: 1 values where 2 belong"),
        ("train.ema", [0.9, "x"], "config.json: train: ema[1]: 'x' is not a float"),
        ("flow.times.shift_reference", "x", "times: shift_reference: 'x' is not a int"),
        ("train", 3, "config.json: train: 3 is not an object with the fields of TrainConfig"),
        ("backbone", 3, "config.json: backbone: 3 is not an object with the fields of DiTConfig"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_path(path, value, message):
    with pytest.raises(UserError) as refusal:
        read(changed(path, value))
    assert message in str(refusal.value)


def test_a_word_that_is_no_choice_is_refused_with_the_nearest_one():
    with pytest.raises(UserError) as refusal:
        read(changed("train.schedule", "cosin"))
    assert str(refusal.value) == (
        "config.json: train: schedule: 'cosin' is not one of 'constant', 'linear', 'cosine'; "
        "did you mean 'cosine'?"
    )


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    with pytest.raises(UserError) as refusal:
        read(changed("backbone.kind", "JitConfig"))
    told = str(refusal.value)
    assert told.startswith("config.json: backbone.kind: 'JitConfig' is not one of DiTConfig, ")
    assert told.endswith("; did you mean 'JiTConfig'?")


@pytest.mark.parametrize("kind", [5, None, [], {}])
def test_a_kind_that_is_no_word_is_refused(kind):
    with pytest.raises(UserError, match=r"config\.json: backbone"):
        read(changed("backbone.kind", kind))


@pytest.mark.parametrize("path", ["kind", "train.kind"])
def test_the_kind_of_another_class_is_refused(path):
    with pytest.raises(UserError, match="BatchConfig"):
        read(changed(path, "BatchConfig"))


def test_an_object_without_its_kind_is_refused_where_there_are_several():
    data = config_io.to_json(EMOJI)
    del data["source"]["kind"]
    with pytest.raises(UserError, match=r"config\.json: source\.kind: '' is not one of"):
        read(data)


def test_a_missing_field_without_a_default_is_named():
    with pytest.raises(UserError) as refusal:
        config_io.from_json(Frame, {"inner": {}}, "frame.json")
    assert str(refusal.value) == "frame.json: inner: the field 'width' of Inner is missing"


def test_a_value_that_its_class_refuses_is_refused():
    with pytest.raises(UserError, match="train: pictures"):
        read(changed("train.pictures", 0))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_not_json_is_refused_by_name(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: not valid JSON"):
        config_io.load(ExperimentConfig, path)


def test_japanese_is_legible_in_the_file(tmp_path):
    config_io.save(EMOJI, tmp_path / "config.json")
    assert "キツネの顔" in (tmp_path / "config.json").read_text("utf-8")


def test_a_save_that_is_interrupted_leaves_the_old_file(tmp_path, monkeypatch):
    config_io.save(EMOJI, tmp_path / "config.json")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        config_io.save(replace(EMOJI, size=64), tmp_path / "config.json")
    assert config_io.load(ExperimentConfig, tmp_path / "config.json") == EMOJI


def test_equal_configs_have_no_differences():
    assert config_io.differences(EMOJI, RECIPES["emoji"]()) == {}


def test_differences_are_named_by_their_dotted_paths():
    other = replace(EMOJI, size=64, train=replace(EMOJI.train, lr=1e-4))
    assert config_io.differences(EMOJI, other) == {"size": (32, 64), "train.lr": (2e-3, 1e-4)}


def test_parts_of_different_classes_differ_as_a_whole():
    other = replace(EMOJI, backbone=DiTConfig())
    assert config_io.differences(EMOJI, other) == {"backbone": (EMOJI.backbone, DiTConfig())}


# -- numbers that are not finite


@dataclass(frozen=True)
class Numbers:
    pair: tuple[float, float] = (0.0, 1.0)
    gap: float | None = None
    inner: tuple[tuple[float, ...], ...] = ()


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 400 * "0"])
@pytest.mark.parametrize(
    ("field", "value"), [("pair[1]", "[0, {}]"), ("gap", "{}"), ("inner[0][0]", "[[{}]]")]
)
def test_a_number_that_is_not_finite_is_refused_with_its_place(
    tmp_path: Path, field: str, value: str, text: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"{field.split("[")[0]}": {value.format(text)}}}')
    with pytest.raises(UserError, match="not a finite number") as error:
        config_io.load(Numbers, path)
    assert f"{path}: {field}" in str(error.value)


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    """As of a config that Python code made."""
    for one in (Numbers(gap=math.inf), Numbers(inner=((0.5, math.nan),))):
        with pytest.raises(UserError, match=r"json: (gap|inner\[0\]\[1\]): not a finite number"):
            config_io.save(one, tmp_path / "config.json")
    assert list(tmp_path.iterdir()) == []
