"""CIFAR-10 in both of its versions."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from flowbrush.data.cifar import Cifar, CifarConfig
from flowbrush.data.source import Source
from flowbrush.errors import UserError

FILES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def pictures(number: int) -> np.ndarray:
    """Two of each file: red, green and blue are the file's number plus 0, 50 and 100."""
    planes = np.repeat(np.array([0, 50, 100], np.uint8) + np.uint8(number), 1024)
    return np.stack([planes, planes + np.uint8(10)])


def binary(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(FILES):
        labels = np.array([[number], [number + 4]], np.uint8)
        rows = np.concatenate([labels, pictures(number)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return folder


def pickled(folder: Path, **changes) -> Path:
    """As Python 3 rewrites it; `test_pickles` has what Python 2 wrote."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(FILES):
        batch = {b"data": pictures(number), b"labels": [number, number + 4], b"batch_label": b"x"}
        batch |= {key.encode(): value for key, value in changes.items()}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    return folder


VERSIONS = {"binary": binary, "pickled": pickled}


def opened(path: Path, **choices) -> Cifar:
    return CifarConfig(path=path, **choices).build(32)


def refusal(path: Path, **choices) -> str:
    with pytest.raises(UserError) as refused:
        opened(path, **choices)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("place", ["here", "cifar-10-batches-bin", "cifar-10-batches-py"])
def test_both_versions_hold_the_same(tmp_path, version, place):
    folder = VERSIONS[version](tmp_path / place)
    source = opened(folder if place == "here" else tmp_path)
    assert isinstance(source, Source) and len(source) == 10
    for i in range(10):
        colour = [i // 2 + i % 2 * 10 + plane for plane in (0, 50, 100)]
        assert (source[i].picture == np.full((32, 32, 3), colour)).all()
        assert source[i].truth == i // 2 + i % 2 * 4


def test_rows_and_columns_stay_what_they_are(tmp_path):
    data = np.arange(3072, dtype=np.uint16).astype(np.uint8)
    binary(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\x03" + data.tobytes())
    picture = opened(tmp_path, split="test")[0].picture
    assert (picture == data.reshape(3, 32, 32).transpose(1, 2, 0)).all()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_split_chooses_the_files(tmp_path, version):
    source = opened(VERSIONS[version](tmp_path), split="test")
    assert [source[i].truth for i in range(len(source))] == [5, 9]


def test_captions_are_sentences_in_two_languages(tmp_path):
    source = opened(binary(tmp_path))
    assert source[6].captions == {"en": "a photo of a cat", "ja": "猫の写真"}
    assert source[0].captions == {"en": "a photo of an airplane", "ja": "飛行機の写真"}
    assert source.classes[:2] == ("a photo of an airplane", "a photo of an automobile")


def test_captions_may_be_the_classes_names(tmp_path):
    source = opened(binary(tmp_path), captions="classes")
    assert source[6].captions == {"class": "cat"}
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert " ".join(source.classes) == names


@pytest.mark.parametrize("captions", ["sentences", "classes"])
def test_the_first_caption_is_one_of_the_classes(tmp_path, captions):
    source = opened(binary(tmp_path), captions=captions)
    for i in range(10):
        example = source[i]
        assert next(iter(example.captions.values())) == source.classes[example.truth]


def test_pictures_are_brought_to_the_size(tmp_path):
    assert CifarConfig(path=binary(tmp_path)).build(20)[0].picture.shape == (20, 20, 3)


def test_it_goes_to_another_process(tmp_path):
    source = pickle.loads(pickle.dumps(opened(binary(tmp_path))))
    assert source[9].truth == 8


# -- what is wrong with the files


def test_no_files_are_told(tmp_path):
    assert "no data_batch_1.bin or data_batch_1 in it" in refusal(tmp_path)
    assert "no test_batch.bin or test_batch in it" in refusal(tmp_path, split="test")


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert f"still packed; tar -xf {tmp_path}/cifar-10-python.tar.gz -C" in refusal(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_missing_file_is_named(tmp_path, version):
    path = next(VERSIONS[version](tmp_path).glob("data_batch_3*"))
    path.unlink()
    assert f"{path}: missing" in refusal(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("length", [0, 10, 3000, -1])
def test_a_file_that_was_cut_is_named(tmp_path, version, length):
    path = next(VERSIONS[version](tmp_path).glob("data_batch_3*"))
    path.write_bytes(path.read_bytes()[:length])
    assert re.match(f"{re.escape(str(path))}: .*fetch it again", refusal(tmp_path))


def test_a_class_beyond_ten_is_refused(tmp_path):
    (binary(tmp_path) / "data_batch_2.bin").write_bytes(b"\x0a" + bytes(3072))
    assert "data_batch_2.bin: a class 10 of 10; this is no CIFAR-10" in refusal(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [1]},
        {"labels": [1, -1]},
        {"labels": [1, 300]},
        {"labels": ["1", "2"]},
        {"labels": 1},
        {"labels": []},
        {"data": np.zeros((2, 3072))},
        {"data": np.zeros((2, 100), np.uint8)},
        {"data": [1, 2]},
    ],
)
def test_another_pickle_is_refused(tmp_path, changes):
    assert "no batch of CIFAR-10" in refusal(pickled(tmp_path, **changes))


def test_a_pickle_of_something_else_is_refused(tmp_path):
    (pickled(tmp_path) / "data_batch_1").write_bytes(pickle.dumps([1, 2]))
    assert "no batch of CIFAR-10" in refusal(tmp_path)


class Command:
    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self):
        return os.system, (self.text,)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    pickled(tmp_path, note=Command(f"touch {tmp_path}/ran"))
    assert "data_batch_1: this pickle asks for posix.system, which is refused" in refusal(tmp_path)
    assert not (tmp_path / "ran").exists()
