"""Records as JaxFM writes them, and what is no such record."""

import os
import pickle
import re
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from array_record.python.array_record_module import ArrayRecordWriter

from flowbrush import config_io
from flowbrush.data.array_record import ArrayRecordConfig, ArrayRecords
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.source import Source, UnreadablePicture
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig


def latents(i: int) -> np.ndarray:
    """16 channels of 4 x 4, all i."""
    return np.full((16, 4, 4), i, np.float32)


def stage_1(i: int) -> dict:
    return {"latent": latents(i), "label": i % 3}


def stage_2(i: int) -> dict:
    return {"latent": latents(i), "short_caption": f"cat {i}", "long_caption": f"a long cat {i}"}


def write(path: Path, *records: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record if isinstance(record, bytes) else pickle.dumps(record))
    writer.close()
    return path


def two_files(folder: Path, record=stage_2) -> Path:
    write(folder / "train.array_record-00001-of-00002", *map(record, range(4, 6)))
    write(folder / "train.array_record-00000-of-00002", *map(record, range(4)))
    return folder


def opened(path: Path, size: int = 32, **choices) -> ArrayRecords:
    return ArrayRecordConfig(path=path, **choices).build(size)


def refusal(path: Path, size: int = 32, **choices) -> str:
    with pytest.raises(UserError) as refused:
        opened(path, size, **choices)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- what is read


@pytest.mark.parametrize("name", ["a.array_record", "a.arrayrecord", "a.array_record-00000-of-9"])
@pytest.mark.parametrize("path", ["", "a.*"])
def test_files_are_found(tmp_path, name, path):
    write(tmp_path / name, stage_2(0))
    assert len(opened(tmp_path / path)) == 1


def test_captions_come_short_and_long(tmp_path):
    source = opened(two_files(tmp_path))
    assert (len(source), source.shards, source.classes) == (6, (4, 2), ())
    assert isinstance(source, Source)
    for i in range(6):
        assert source[i].captions == {"short": f"cat {i}", "long": f"a long cat {i}"}
        assert (source[i].picture == latents(i).transpose(1, 2, 0)).all()
        assert source[i].picture.dtype == np.float16


def test_a_place_outside_is_an_index_error(tmp_path):
    source = opened(two_files(tmp_path))
    for i in (-1, 6):
        with pytest.raises(IndexError):
            source[i]


def test_classes_without_names_are_called_by_their_numbers(tmp_path):
    source = opened(two_files(tmp_path, stage_1), labels=3)
    assert source.classes == ("0", "1", "2")
    assert [(source[i].captions, source[i].truth) for i in (0, 5)] == [
        ({"class": "0"}, 0),
        ({"class": "2"}, 2),
    ]


@pytest.mark.parametrize("label", [np.int64(1), np.array(1), np.array([1], np.int32)])
def test_a_number_of_numpys_is_a_label_too(tmp_path, label):
    path = write(tmp_path / "a.array_record", {"latent": latents(0), "label": label})
    assert (opened(path, labels=2)[0].captions, opened(path)[0].truth) == ({"class": "1"}, 1)


def test_names_of_classes_come_from_a_file(tmp_path):
    names = tmp_path / "names.tsv"
    names.write_text("2\tdog\t犬\n0\tcat\t猫\n1\tfox\t狐\n", "utf-8")
    source = opened(two_files(tmp_path, stage_1), names=names)
    assert source.classes == ("cat", "fox", "dog")
    assert source[2].captions == {"en": "dog", "ja": "犬"}


def test_fields_may_be_given(tmp_path):
    record = {"z": latents(1).ravel(), "short_caption": "a", "note": b"\xe7\x8c\xab"}
    path = write(tmp_path / "a.array_record", record)
    source = opened(path, latents="z", shape=(16, 4, 4), captions=("ja=note",))
    assert source[0].captions == {"ja": "猫"} and source[0].picture.shape == (4, 4, 16)


def test_it_goes_to_another_process_after_it_was_read(tmp_path):
    source = opened(two_files(tmp_path))
    source[0]
    assert pickle.loads(pickle.dumps(source))[4].captions["short"] == "cat 4"


def test_a_batch_has_latents_wherever_it_was_read(tmp_path):
    source = opened(two_files(tmp_path))

    def taken(workers: int):
        with closing(batches(source, BatchConfig(size=6, workers=workers), 0, 0)) as read:
            return next(islice(read, 1))

    alone, shared = taken(0), taken(1)
    assert (alone.pictures.dtype, alone.pictures.shape) == (torch.float16, (6, 16, 4, 4))
    assert torch.equal(alone.pictures, shared.pictures) and alone.captions == shared.captions
    numbers = [float(caption.split()[-1]) for caption in alone.captions]
    assert alone.pictures[:, 3, 1, 2].tolist() == numbers


# -- what is skipped


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (b"\x80\x04nothing", "damaged"),
        (b"", "damaged"),
        ([1, 2], "a list where a dict belongs"),
        ({**stage_2(0), "latent": "x"}, "latent is no array"),
        ({**stage_2(0), "latent": np.zeros((16, 8, 8))}, r"latents of \(8, 8, 16\), others of"),
        ({**stage_2(0), "latent": np.zeros((32, 4, 4))}, r"latents of \(4, 4, 32\), others of"),
        ({**stage_2(0), "latent": np.full((16, 4, 4), np.inf)}, "numbers that 16 bits"),
        ({**stage_2(0), "short_caption": "", "long_caption": None}, "no caption in short_caption"),
        ({**stage_2(0), "short_caption": 3, "long_caption": None}, "no caption, but a int in"),
        ({"latent": latents(0)}, "no caption in short_caption, long_caption"),
    ],
)
def test_a_record_that_does_not_fit_is_skipped(tmp_path, record, said):
    path = write(tmp_path / "a.array_record", stage_2(0), record)
    with pytest.raises(UnreadablePicture, match=rf"a\.array_record:1: {said}"):
        opened(path)[1]


def test_a_record_that_lacks_one_of_two_captions_has_the_other(tmp_path):
    short = {**stage_2(1), "long_caption": None}
    source = opened(write(tmp_path / "a.array_record", stage_2(0), short))
    assert [list(source[i].captions) for i in range(2)] == [["short", "long"], ["short"]]


def test_a_damaged_first_record_does_not_keep_the_others_from_being_read(tmp_path):
    source = opened(write(tmp_path / "a.array_record", b"x", stage_2(1), stage_2(2)))
    with pytest.raises(UnreadablePicture, match=":0: damaged"):
        source[0]
    assert len(source[1].captions) == 2


@pytest.mark.parametrize("label", [3, -1, "0x", None, 1.5])
def test_a_label_beyond_the_classes_is_skipped(tmp_path, label):
    record = {"latent": latents(0), "label": label}
    source = opened(write(tmp_path / "a.array_record", stage_1(0), record), labels=3)
    with pytest.raises(UnreadablePicture, match="no class has the number"):
        source[1]


# -- what is refused


class Command:
    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self):
        return os.system, (self.text,)


@pytest.mark.parametrize("place", [0, 1])
def test_a_record_that_runs_code_is_refused_and_not_run(tmp_path, place):
    records = [stage_2(0), stage_2(1)]
    records[place]["latent"] = Command(f"touch {tmp_path}/ran")
    path = write(tmp_path / "a.array_record", *records)
    with pytest.raises(UserError, match=rf"a\.array_record:{place}: .*posix\.system.* refused"):
        opened(path)[1]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("record", "choices", "said"),
    [
        ({"x": latents(0)}, {}, "has no column 'latent'"),
        (stage_2(0), {"latents": "latnet"}, "source.latents: .* did you mean 'latent'"),
        (stage_2(0), {"captions": ("shrot_caption",)}, "source.captions: .* 'shrot_caption'"),
        ({"latent": latents(0)}, {}, "neither captions nor label among latent"),
        ({"latent": latents(0).astype("i4"), "label": 0}, {}, ":0: latents of int32"),
        (b"x", {}, ":0: damaged.*; none of the first 1 records is readable: write them again"),
    ],
)
def test_what_is_wrong_with_the_first_record_is_told_at_the_start(tmp_path, record, choices, said):
    path = write(tmp_path / "a.array_record", record)
    assert re.search(said, refusal(path, **choices))


def test_pictures_of_another_size_are_refused(tmp_path):
    assert "size: 30 pixels, but" in refusal(two_files(tmp_path), 30)


def test_names_must_be_of_the_numbers(tmp_path):
    names = tmp_path / "names.tsv"
    names.write_text("n01440764\ttench\n", "utf-8")
    said = refusal(two_files(tmp_path, stage_1), names=names)
    assert "names.tsv: keys must be the numbers of the classes, 0 to 0" in said


def test_nothing_there_is_told(tmp_path):
    assert "no *.array_record or" in refusal(tmp_path)


@pytest.mark.parametrize("spoil", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"x" * 9])
def test_a_file_that_was_cut_short_is_told(tmp_path, spoil):
    path = write(tmp_path / "a.array_record", *map(stage_2, range(3)))
    path.write_bytes(spoil(path.read_bytes()))
    assert "a.array_record: no records in it, or cut short" in refusal(path)


def test_a_run_remembers_what_it_read():
    source = ArrayRecordConfig(shape=(4, 8, 8), names=Path("names.tsv"))
    config = ExperimentConfig(source=source)
    assert config_io.from_json(ExperimentConfig, config_io.to_json(config), "x") == config
