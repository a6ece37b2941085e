"""Encoding once gives what encoding on the fly gives, whatever happens on the way."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import tiny, tiny_dit

from flowbrush.backbones import MMDiTConfig, PixArtConfig
from flowbrush.data import FolderConfig, PreparedConfig, ShapesWorldConfig
from flowbrush.data.prepared import Shard, shard_path
from flowbrush.data.source import Example
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, with_classes
from flowbrush.prepare import manifest
from flowbrush.prepare.prepare import PrepareConfig, prepare
from flowbrush.prepare.shards import Work, record_path, write_shard
from flowbrush.processes import Processes
from flowbrush.spaces import LatentConfig
from flowbrush.spaces.tiny import tiny_autoencoder
from flowbrush.text import CLIPConfig, FluxTextConfig, T5Config
from flowbrush.text.tiny import tiny_clip, tiny_t5
from flowbrush.train.loop import train

CPU = Processes(torch.device("cpu"))
TINY = str(Path(__file__).parents[1] / "tiny.py")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_autoencoder(folder / "vae", channels=4, factor=4)
    tiny_clip(folder / "clip", folder / "clip")
    tiny_t5(folder / "t5", folder / "t5")
    return folder


def masked(models: Path) -> ExperimentConfig:
    """A PixArt on latents and T5's tokens, padding left out."""
    return replace(
        tiny(),
        source=ShapesWorldConfig(scenes=20),
        space=LatentConfig(model=str(models / "vae")),
        text=T5Config(model=str(models / "t5"), tokens=40),
        backbone=PixArtConfig(depth=1, width=32, heads=2),
    )


def attended(models: Path) -> ExperimentConfig:
    """An MMDiT on latents, T5's tokens with their padding, and CLIP's pooled vector."""
    t5 = T5Config(model=str(models / "t5"), tokens=12, padding="attended")
    backbone = MMDiTConfig(depth=1, width=32, heads=2, positions=8)
    text = FluxTextConfig(clip=CLIPConfig(model=str(models / "clip")), t5=t5)
    return replace(masked(models), text=text, backbone=backbone)


def sentences(models: Path) -> ExperimentConfig:
    return replace(tiny(), source=ShapesWorldConfig(scenes=20))


def labels(models: Path) -> ExperimentConfig:
    config = tiny_dit()
    return replace(config, batch=replace(config.batch, flip=False))


def into(folder: Path, **choices: object) -> PrepareConfig:
    return PrepareConfig(to=folder, **{"shard": 8, "batch": 3, "device": "cpu", **choices})


def prepared(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    return replace(config, source=PreparedConfig(path=folder))


def digests(folder: Path) -> dict[str, str]:
    paths = sorted(folder.glob("*.safetensors"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "journal.jsonl").read_text().splitlines()]


# -- what is stored


@pytest.mark.parametrize("experiment", [masked, attended, sentences, labels])
def test_a_sample_holds_what_encoding_on_the_fly_gives(
    tmp_path: Path, models: Path, experiment: Callable[[Path], ExperimentConfig]
) -> None:
    config = experiment(models)
    whole = config.source.build(config.size)
    config = with_classes(config, whole)
    prepare(config, into(tmp_path / "p", shard=max(8, len(whole) // 3)))
    found = PreparedConfig(path=tmp_path / "p").build(config.size)
    space, encoder = config.space.build(CPU.device), config.text.build(CPU.device)
    assert len(found) == len(whole)
    for i in (0, 7, 8, 11, len(whole) - 1):
        expected, example = whole[i], found[i]
        picture = torch.from_numpy(expected.picture.copy()).permute(2, 0, 1)[None]
        latents = space.compress(picture)[0].permute(1, 2, 0)
        torch.testing.assert_close(
            torch.from_numpy(example.picture.copy()).float(), latents.float(), rtol=1e-3, atol=1e-3
        )
        assert list(example.captions.items()) == list(expected.captions.items())
        for kind, caption in expected.captions.items():
            assert example.features is not None
            given, own = encoder([caption]), example.features[kind].condition()
            assert (own.label, own.text_mask) == (given.label, given.text_mask)
            for part, stored in ((given.text, own.text), (given.pooled, own.pooled)):
                assert (part is None) == (stored is None)
                if part is not None:
                    torch.testing.assert_close(stored, part, rtol=2**-8, atol=1e-4)


def test_the_null_condition_and_the_prompts_are_kept_as_they_are(
    tmp_path: Path, models: Path
) -> None:
    config = attended(models)
    prepare(config, into(tmp_path))
    found, encoder = PreparedConfig(path=tmp_path).build(config.size), config.text.build(CPU.device)
    for prompt in ("", *config.watch.prompts):
        kept, given = found.known()[prompt], encoder([prompt]) if prompt else encoder.null
        assert torch.equal(kept.text, given.text) and torch.equal(kept.pooled, given.pooled)


def test_the_manifest_says_what_there_is(tmp_path: Path, models: Path) -> None:
    done = prepare(attended(models), into(tmp_path)).manifest
    assert (done.complete, done.samples, done.broken) == (True, (8, 8, 4), 0)
    assert (done.mirrored, done.latents, done.dtypes["latents"]) == (True, (8, 4, 4), "fp16")
    assert (done.condition.text_width, done.condition.text_tokens) == (64, 12)
    assert set(done.versions) == {"flowbrush", "torch", "transformers", "diffusers"}


# -- training


@pytest.mark.parametrize("experiment", [masked, attended, sentences])
def test_training_from_shards_has_the_losses_of_encoding_on_the_fly(
    tmp_path: Path, models: Path, experiment: Callable[[Path], ExperimentConfig]
) -> None:
    config = experiment(models)
    prepare(config, into(tmp_path / "p"))
    train(config, tmp_path / "fly", CPU)
    train(prepared(config, tmp_path / "p"), tmp_path / "shards", CPU)
    # fp16 latents and bf16 features: each carries a relative error of at most 2^-9.
    assert losses(tmp_path / "shards") == pytest.approx(losses(tmp_path / "fly"), rel=5e-3)


def test_a_model_of_labels_trains_from_shards(tmp_path: Path) -> None:
    config = labels(tmp_path)
    prepare(config, into(tmp_path / "p", shard=2000, batch=500))
    train(config, tmp_path / "fly", CPU)
    train(prepared(config, tmp_path / "p"), tmp_path / "shards", CPU)
    assert losses(tmp_path / "shards") == losses(tmp_path / "fly")  # bytes and numbers: no rounding


def test_training_from_shards_loads_no_text_model(tmp_path: Path, models: Path) -> None:
    own = tmp_path / "models"
    shutil.copytree(models, own)
    prepare(masked(own), into(tmp_path / "p"))
    shutil.rmtree(own / "t5")
    assert train(prepared(masked(own), tmp_path / "p"), tmp_path / "run", CPU) == 0


def test_previews_without_prompts_take_captions_of_the_first_examples(
    tmp_path: Path, models: Path
) -> None:
    config = sentences(models)
    config = replace(config, watch=replace(config.watch, prompts=()))
    prepare(config, into(tmp_path / "p"))
    assert train(prepared(config, tmp_path / "p"), tmp_path / "run", CPU) == 0


def test_another_prompt_is_refused_until_it_is_prepared(tmp_path: Path, models: Path) -> None:
    config = sentences(models)
    other = replace(config, watch=replace(config.watch, prompts=("a fox",)))
    prepare(config, into(tmp_path / "p"))
    before = digests(tmp_path / "p")
    with pytest.raises(UserError, match="'a fox' is not among the prepared prompts"):
        train(prepared(other, tmp_path / "p"), tmp_path / "refused", CPU)
    assert not (tmp_path / "refused").exists(), "it is refused before the first step"
    prepare(other, into(tmp_path / "p"))
    changed = {name for name, digest in digests(tmp_path / "p").items() if before[name] != digest}
    assert changed == {"conditions.safetensors"}
    assert train(prepared(other, tmp_path / "p"), tmp_path / "run", CPU) == 0


def test_the_command_line_prepares_and_trains(tmp_path: Path) -> None:
    def flowbrush(*words: str) -> str:
        command = [sys.executable, "-m", "flowbrush", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    said = flowbrush("prepare", f"{TINY}:tiny", "--to", str(tmp_path / "p"), "--shard", "64")
    assert re.search(r"200 pictures encoded, [\d.]+ a second; 1\.0 MB", said)
    assert "complete, 200 pictures in 4 shards" in said
    run = str(tmp_path / "run")
    said = flowbrush(
        "train", f"{TINY}:tiny", "--run", run, "--prepared", str(tmp_path / "p"),
        "--train.pictures", "16",
    )  # fmt: skip
    assert "trained on 16 pictures" in said
    assert json.loads(Path(run, "config.json").read_text())["source"]["kind"] == "PreparedConfig"


# -- going on


def test_a_second_try_makes_only_what_is_missing(tmp_path: Path, models: Path) -> None:
    config = sentences(models)
    prepare(config, into(tmp_path))
    before, kept = digests(tmp_path), shard_path(tmp_path, 0).stat().st_mtime_ns
    record_path(tmp_path, 1).unlink()
    assert prepare(config, into(tmp_path)).pictures == 8
    assert digests(tmp_path) == before
    assert shard_path(tmp_path, 0).stat().st_mtime_ns == kept
    assert prepare(config, into(tmp_path)).pictures == 0


def test_a_damaged_shard_is_made_again_with_a_word(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture
) -> None:
    config = masked(models)
    prepare(config, into(tmp_path))
    before, path = digests(tmp_path), shard_path(tmp_path, 1)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert prepare(config, into(tmp_path)).pictures == 8
    assert f"{path}: damaged (not as it was written); it is made again" in capsys.readouterr().out
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("field_name", "other"),
    [
        ("size was 16, is now 32", lambda c: replace(c, size=32)),
        ("text.tokens was 40", lambda c: replace(c, text=replace(c.text, tokens=41))),
        ("space.dtype was fp32", lambda c: replace(c, space=replace(c.space, dtype="bf16"))),
        ("source.seed was 0", lambda c: replace(c, source=replace(c.source, seed=1))),
        ("mirrored was True", lambda c: replace(c, batch=replace(c.batch, flip=False))),
    ],
)
def test_a_folder_that_was_begun_otherwise_is_refused(
    tmp_path: Path,
    models: Path,
    field_name: str,
    other: Callable[[ExperimentConfig], ExperimentConfig],
) -> None:
    prepare(masked(models), into(tmp_path))
    with pytest.raises(UserError, match=re.escape(field_name)):
        prepare(other(masked(models)), into(tmp_path))


def test_shards_of_another_size_are_refused(tmp_path: Path, models: Path) -> None:
    prepare(sentences(models), into(tmp_path))
    with pytest.raises(UserError, match="shard was 8, is now 9"):
        prepare(sentences(models), into(tmp_path, shard=9))


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path, models: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files"):
        prepare(sentences(models), into(tmp_path))


def test_what_is_prepared_is_not_prepared_again(tmp_path: Path, models: Path) -> None:
    prepare(sentences(models), into(tmp_path / "p"))
    with pytest.raises(UserError, match="is prepared already"):
        prepare(prepared(sentences(models), tmp_path / "p"), into(tmp_path / "q"))


@pytest.mark.parametrize("wrong", [{"shard": 0}, {"batch": 0}, {"workers": 0}])
def test_shards_of_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="must be 1 or more"):
        PrepareConfig(**wrong)


# -- broken pictures and other surprises


def folder_of_pictures(folder: Path, count: int = 20, broken: tuple[int, ...] = ()) -> FolderConfig:
    folder.mkdir()
    for i in range(count):
        path = folder / f"{i:02}.png"
        Image.new("RGB", (16, 16), (10 * i, 0, 0)).save(path)
        path.with_suffix(".txt").write_text(f"red {i}")
        if i in broken:
            path.write_bytes(path.read_bytes()[:40])
    return FolderConfig(path=folder)


def test_broken_pictures_are_left_out_and_listed(tmp_path: Path, models: Path) -> None:
    source = folder_of_pictures(tmp_path / "pictures", broken=(3, 8, 9))
    config = replace(sentences(models), source=source)
    done = prepare(config, into(tmp_path / "p")).manifest
    assert (done.samples, done.broken) == ((7, 6, 4), 3)
    listed = json.loads(record_path(tmp_path / "p", 1).read_text())["broken"]
    assert [Path(entry["name"]).name for entry in listed] == ["08.png", "09.png"]
    assert [entry["index"] for entry in listed] == [8, 9] and all(e["reason"] for e in listed)
    found = PreparedConfig(path=tmp_path / "p").build(16)
    numbers = [int(found[i].captions["caption"].split()[1]) for i in range(len(found))]
    assert numbers == [i for i in range(20) if i not in (3, 8, 9)]
    assert [int(found[i].picture[0, 0, 0]) // 10 for i in range(len(found))] == numbers


def test_a_shard_may_be_broken_altogether(tmp_path: Path, models: Path) -> None:
    source = folder_of_pictures(tmp_path / "pictures", broken=tuple(range(8)))
    config = replace(sentences(models), source=source)
    assert prepare(config, into(tmp_path / "p")).manifest.samples == (0, 8, 4)
    assert PreparedConfig(path=tmp_path / "p").build(16)[0].captions == {"caption": "red 8"}


def test_a_source_of_broken_pictures_alone_is_refused(tmp_path: Path, models: Path) -> None:
    source = folder_of_pictures(tmp_path / "pictures", 4, broken=(0, 1, 2, 3))
    with pytest.raises(UserError, match="none of the 4 pictures could be read"):
        prepare(replace(sentences(models), source=source), into(tmp_path / "p"))


def test_an_image_that_has_changed_is_refused(tmp_path: Path, models: Path) -> None:
    source = folder_of_pictures(tmp_path / "pictures")
    config = replace(sentences(models), source=source)
    prepare(config, into(tmp_path / "p"))
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "pictures" / "00.png")
    with pytest.raises(UserError, match="images were replaced or edited"):
        prepare(config, into(tmp_path / "p"))


def test_an_edit_that_keeps_the_length_is_noticed_beyond_the_sampled_examples(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(manifest, "SAMPLED", 0)  # the first and the last alone
    pictures = folder_of_pictures(tmp_path / "pictures", 4).path
    config = replace(sentences(models), source=FolderConfig(path=pictures))
    prepare(config, into(tmp_path / "p"))
    content = (pictures / "01.png").read_bytes()
    (pictures / "01.png").write_bytes(content)
    prepare(config, into(tmp_path / "p"))
    assert "images were written again" in capsys.readouterr().err
    caption = (pictures / "01.txt").read_text()
    (pictures / "01.txt").write_text(caption.upper())
    with pytest.raises(UserError, match="captions were edited"):
        prepare(config, into(tmp_path / "p"))


@dataclass(frozen=True)
class Uneven:
    """Its second example has no Japanese caption, its third one none that is taken."""

    classes: tuple[str, ...] = field(default=(), init=False)
    attribution: str = field(default="", init=False)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Example:
        captions = ({"en": "grey", "ja": "灰"}, {"en": "grey"}, {"en": "x" * 9_999})[i]
        return Example(np.zeros((16, 16, 3), np.uint8), captions)


def test_an_example_keeps_those_kinds_of_captions_that_it_has(tmp_path: Path, models: Path) -> None:
    config = sentences(models)
    manifest = replace(prepare(config, into(tmp_path)).manifest, examples=3)
    work = Work(config, manifest, tmp_path, 4)
    encoding = replace(work.encoding(CPU.device), source=Uneven())
    record = write_shard(work, 0, encoding)
    shard = Shard(shard_path(tmp_path, 0))
    both, one = shard.example(0), shard.example(1)
    assert (both.captions, one.captions) == ({"en": "grey", "ja": "灰"}, {"en": "grey"})
    assert both.features and one.features and list(one.features) == ["en"]
    english, japanese = both.features["en"], both.features["ja"]
    for mine, features in ((one.features["en"], english), (english, english)):
        assert mine.text is not None and features.text is not None
        assert np.array_equal(mine.text, features.text)
    assert not np.array_equal(japanese.text, english.text)
    assert [broken.reason for broken in record.broken] == [
        "a caption of 9,999 characters, over 2,000"
    ]


def test_latents_beyond_fp16_are_refused(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = masked(models)
    work = Work(config, prepare(config, into(tmp_path)).manifest, tmp_path, 4)
    encoding = work.encoding(CPU.device)
    monkeypatch.setattr(encoding.space, "compress", lambda pictures: pictures[..., :4, :4] + 1e6)
    with pytest.raises(UserError, match="latents that fp16 cannot hold"):
        write_shard(work, 0, encoding)


# -- several processes, and sudden ends


def command(
    folder: Path, recipe: str = "tiny", *words: str, **environment: str
) -> subprocess.Popen:
    words = ("--to", str(folder), "--shard", "20", "--batch", "4", "--device", "cpu", *words)
    return subprocess.Popen(
        [sys.executable, "-m", "flowbrush", "prepare", f"{TINY}:{recipe}", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def holds_every_example_once(folder: Path, examples: int) -> bool:
    """And every shard agrees with its record, and nothing half-written is left."""
    indices: list[int] = []
    for number in range(PreparedConfig(path=folder).build(16).manifest.shards):
        path = shard_path(folder, number)
        indices += load_file(path)["index"].tolist()
        record = json.loads(record_path(folder, number).read_text())
        if record["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
            return False
    return indices == list(range(examples)) and not list(folder.glob(".aside-*"))


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    children = [command(tmp_path / "two", RANK=str(r), WORLD_SIZE="2") for r in (0, 1)]
    assert [child.wait() for child in children] == [0, 0]
    assert command(tmp_path / "one").wait() == 0
    assert holds_every_example_once(tmp_path / "two", 200)
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


def test_a_process_does_its_share_and_leaves_the_rest(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    done = prepare(sentences(models), into(tmp_path))
    assert (done.pictures, done.manifest.complete) == (8, False)
    monkeypatch.setenv("RANK", "0")
    done = prepare(sentences(models), into(tmp_path))
    assert (done.pictures, done.manifest.complete) == (12, True)


def test_killed_again_and_again_it_ends_with_every_example_once(tmp_path: Path) -> None:
    assert command(tmp_path / "whole").wait() == 0
    folder, kills = tmp_path / "killed", 0
    for wanted in (0, 3, 6):
        child = command(folder)
        while child.poll() is None and len(list(folder.glob("shard-*.json"))) <= wanted:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert kills >= 2
    assert command(folder).wait() == 0
    assert holds_every_example_once(folder, 200)
    assert digests(folder) == digests(tmp_path / "whole")
