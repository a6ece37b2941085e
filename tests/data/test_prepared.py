"""Reading shards that are written here by hand, tensor by tensor."""

import json
import pickle
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flowbrush import config_io
from flowbrush.data.batches import Batch, BatchConfig, batches
from flowbrush.data.mixture import Mixture, MixtureConfig, ShareConfig
from flowbrush.data.prepared import Manifest, Prepared, PreparedConfig
from flowbrush.data.source import shards_of
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, build_encoder, unprepared
from flowbrush.shapes import ConditionShapes
from flowbrush.text import LabelsConfig

MANIFEST = Manifest(
    size=16,
    space=config_io.to_json(ExperimentConfig().space),
    text=config_io.to_json(ExperimentConfig().text),
    source={},
    examples=5,
    fingerprint="",
    classes=("a", "b"),
    attribution="by me",
    shard=3,
    mirrored=True,
    versions={},
    dtypes={"latents": "fp16", "text": "bf16"},
    complete=True,
    samples=(3, 0, 2),
    digest="d",
    latents=(1, 2, 2),
    condition=ConditionShapes(text_width=2, text_tokens=4, pooled_width=3),
)
CPU = torch.device("cpu")


def ragged(name: str, parts: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    starts = torch.tensor([0, *map(len, parts)]).cumsum(0)
    return {name: torch.cat(parts), f"{name}.starts": starts}


def texts(i: int, kind: str) -> torch.Tensor:
    """i + 1 tokens of width 2."""
    return torch.full((i + 1, 2), i + (0.5 if kind == "ja" else 0.0))


def write_shard(path: Path, numbers: range, views: int) -> None:
    """Sample i: latents i, mirrored -i; "en i" and "日 i" with i + 1 tokens; pooled 10 i."""
    latents = [torch.stack([torch.full((1, 2, 2), s * i) for s in (1.0, -1.0)]) for i in numbers]
    tensors = {
        "index": torch.tensor(list(numbers)),
        "latents": torch.stack(latents)[:, :views].half()
        if latents
        else torch.empty(0, 1, 0, 0, 0),
    }
    for kind, word in (("en", "en"), ("ja", "日")) if latents else ():
        captions = [torch.tensor(list(f"{word} {i}".encode()), dtype=torch.uint8) for i in numbers]
        tensors |= ragged(f"caption.{kind}", captions)
        tensors |= ragged(f"text.{kind}", [texts(i, kind).bfloat16() for i in numbers])
        pooled = torch.stack([torch.full((3,), 10.0 * i) for i in numbers])
        tensors[f"pooled.{kind}"] = pooled.bfloat16()
    kinds = ["en", "ja"] if latents else []
    save_file(tensors, path, {"captions": json.dumps(kinds)})


def written(folder: Path, views: int = 2, manifest: Manifest = MANIFEST) -> Prepared:
    for number, numbers in enumerate((range(3), range(0), range(3, 5))):
        write_shard(folder / f"shard-{number:06d}.safetensors", numbers, views)
    null = {"0.text": torch.zeros(1, 1, 2), "1.text": torch.ones(1, 2, 2)}
    null |= {"0.pooled": torch.zeros(1, 3), "1.pooled": torch.ones(1, 3)}
    known = {"prompts": ["a fox"], "shapes": {}}
    save_file(null, folder / "conditions.safetensors", {"conditions": json.dumps(known)})
    config_io.save(manifest, folder / "manifest.json")
    return PreparedConfig(path=folder).build(16)


def take(count: int, source: Prepared, **choices: object) -> list[Batch]:
    with closing(batches(source, BatchConfig(**choices), 0, 0)) as loader:
        return list(islice(loader, count))


def test_every_sample_is_found_in_its_shard(tmp_path: Path) -> None:
    source = written(tmp_path)
    assert [float(source[i].picture[0, 0, 0]) for i in range(len(source))] == [0, 1, 2, 3, 4]
    assert [dict(source[i].captions) for i in (0, 4)] == [
        {"en": "en 0", "ja": "日 0"},
        {"en": "en 4", "ja": "日 4"},
    ]


def test_each_caption_has_its_own_features_without_padding(tmp_path: Path) -> None:
    example = written(tmp_path)[2]
    assert example.features is not None
    for kind in ("en", "ja"):
        condition = example.features[kind].condition()
        assert torch.equal(condition.text, texts(2, kind)[None])
        assert torch.equal(condition.pooled, torch.full((1, 3), 20.0))
        assert condition.text_mask is None and condition.label is None


def test_classes_and_attribution_are_the_sources(tmp_path: Path) -> None:
    assert (written(tmp_path).classes, written(tmp_path).attribution) == (("a", "b"), "by me")


def test_a_batch_has_latents_and_the_features_of_its_captions(tmp_path: Path) -> None:
    (batch,) = take(1, written(tmp_path), size=20)
    assert (batch.pictures.dtype, batch.pictures.shape) == (torch.float16, (20, 1, 2, 2))
    numbers = [int(caption.split()[1]) for caption in batch.captions]
    assert batch.pictures[:, 0, 0, 0].tolist() == numbers
    kinds = ["en" if caption.startswith("en") else "ja" for caption in batch.captions]
    assert set(kinds) == {"en", "ja"} and batch.features is not None
    for i, kind, condition in zip(numbers, kinds, batch.features, strict=True):
        assert torch.equal(condition.text, texts(i, kind)[None])


def test_a_flip_takes_the_latents_of_the_mirrored_picture(tmp_path: Path) -> None:
    (batch,) = take(1, written(tmp_path), size=40, flip=True)
    numbers = torch.tensor([int(caption.split()[1]) for caption in batch.captions])
    signs = batch.pictures[:, 0, 0, 0].float() / numbers.clamp(min=1)
    assert set(signs[numbers > 0].tolist()) == {1.0, -1.0}


def test_a_flip_without_those_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batch\.flip: these latents were stored without"):
        take(1, written(tmp_path, views=1), size=40, flip=True)


def test_worker_processes_read_the_same(tmp_path: Path) -> None:
    source = written(tmp_path)
    alone, shared = take(3, source, size=4), take(3, source, size=4, workers=2)
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.pictures, other.pictures) and one.captions == other.captions
        for a, b in zip(one.features or [], other.features or [], strict=True):
            assert torch.equal(a.text, b.text)


def test_it_goes_to_another_process_after_it_was_read(tmp_path: Path) -> None:
    source = written(tmp_path)
    source[0]
    assert pickle.loads(pickle.dumps(source))[4].captions["en"] == "en 4"


def test_prompts_and_captions_of_the_first_examples_are_known(tmp_path: Path) -> None:
    known = written(tmp_path).known()
    assert set(known) == {"", "a fox"} | {f"{w} {i}" for w in ("en", "日") for i in range(5)}
    assert torch.equal(known["a fox"].text, torch.ones(1, 2, 2))


# -- what is refused


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing prepared in it"):
        PreparedConfig(path=tmp_path).build(16)


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finished; go on with: flowbrush prepare"):
        written(tmp_path, manifest=replace(MANIFEST, complete=False))


def test_another_size_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UserError, match=r"size: 32 pixels, but .* holds 16"):
        PreparedConfig(path=tmp_path).build(32)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_shard_that_was_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    source = written(tmp_path, manifest=replace(MANIFEST, digest=f"cut at {length}"))
    path = tmp_path / "shard-000002.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"shard-000002\.safetensors: not to be read"):
        source[4]


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path, manifest=replace(MANIFEST, digest="missing"))
    (tmp_path / "shard-000000.safetensors").unlink()
    with pytest.raises(UserError, match=r"shard-000000\.safetensors: not to be read"):
        source[0]


def test_missing_conditions_are_refused(tmp_path: Path) -> None:
    source = written(tmp_path)
    (tmp_path / "conditions.safetensors").unlink()
    with pytest.raises(UserError, match=r"conditions\.safetensors: not to be read"):
        source.known()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": LabelsConfig(names=("a",))}, "text: LabelsConfig"),
        ({"train": {"encoder_dropout": 0.1}}, r"train\.encoder_dropout"),
        ({"batch": {"flip": True}}, r"batch\.flip: .* holds no mirrored pictures"),
    ],
)
def test_an_experiment_that_it_was_not_prepared_for_is_refused(
    tmp_path: Path, change: dict, said: str
) -> None:
    source = written(tmp_path, 1, replace(MANIFEST, mirrored=False))
    config = ExperimentConfig(size=16)
    for name, value in change.items():
        now = replace(getattr(config, name), **value) if isinstance(value, dict) else value
        config = replace(config, **{name: now})
    with pytest.raises(UserError, match=said):
        build_encoder(config, source, CPU)


def test_what_is_done_at_each_step_may_differ(tmp_path: Path) -> None:
    from flowbrush.spaces import LatentConfig

    space = config_io.to_json(LatentConfig(model="vae"))
    source = written(tmp_path, manifest=replace(MANIFEST, space=space))
    config = ExperimentConfig(size=16, space=LatentConfig(model="vae", mean=(0.5,), sample=False))
    assert build_encoder(config, source, CPU).shapes == MANIFEST.condition
    other = replace(config, space=LatentConfig(model="another"))
    with pytest.raises(UserError, match=r"space\.model: another, but .* was prepared with vae"):
        build_encoder(other, source, CPU)


def test_the_pictures_themselves_are_where_they_were(tmp_path: Path) -> None:
    made = config_io.to_json(ExperimentConfig().source)
    written(tmp_path, manifest=replace(MANIFEST, source=made))
    assert unprepared(PreparedConfig(path=tmp_path)) == ExperimentConfig().source
    assert unprepared(ExperimentConfig().source) == ExperimentConfig().source


def test_prepared_folders_are_mixed(tmp_path: Path) -> None:
    parts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made = config_io.to_json(ExperimentConfig().source)
        parts.append(written(tmp_path / name, manifest=replace(MANIFEST, source=made)))
    mixture, config = Mixture(tuple(parts), (0.5, 0.5)), ExperimentConfig(size=16)
    encoder = build_encoder(config, mixture, CPU)
    assert encoder.shapes == MANIFEST.condition
    assert encoder(["a fox", "en 1"]).pooled.tolist() == [[1.0] * 3, [10.0] * 3]
    with closing(batches(mixture, BatchConfig(size=10, window=1), 0, 0)) as loader:
        assert len(next(loader).features) == 10
    with pytest.raises(UserError, match="some are prepared and some are not"):
        build_encoder(config, Mixture((*parts, config.source.build(16)), (1.0, 1.0, 1.0)), CPU)
    other = MANIFEST.condition.__class__(text_width=3, text_tokens=4, pooled_width=3)
    (tmp_path / "c").mkdir()
    wider = written(tmp_path / "c", manifest=replace(MANIFEST, condition=other))
    with pytest.raises(UserError, match="not encoded as"):
        build_encoder(config, Mixture((parts[0], wider), (1.0, 1.0)), CPU)
    shares = [ShareConfig(source=PreparedConfig(path=part.path)) for part in parts]
    assert {part.source for part in unprepared(MixtureConfig(parts=tuple(shares))).parts} == {
        config.source
    }


def test_the_order_may_keep_to_a_few_shards(tmp_path: Path) -> None:
    assert shards_of(written(tmp_path)) == (3, 0, 2)
