"""The MNIST family's files."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from flowbrush.data.idx import Idx, IdxConfig, read_idx
from flowbrush.errors import UserError

PICTURES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
LABELS = np.array([2, 0, 1], np.uint8)


def encoded(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def fill(
    folder: Path,
    pictures: np.ndarray = PICTURES,
    labels: np.ndarray = LABELS,
    split: str = "train",
    ending: str = "",
) -> Path:
    pack = gzip.compress if ending else bytes
    (folder / f"{split}-images-idx3-ubyte{ending}").write_bytes(pack(encoded(pictures)))
    (folder / f"{split}-labels-idx1-ubyte{ending}").write_bytes(pack(encoded(labels)))
    return folder


def opened(folder: Path, **choices) -> Idx:
    return IdxConfig(path=folder, **choices).build(4)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_pictures_and_labels_are_read_back(tmp_path, ending):
    source = opened(fill(tmp_path, ending=ending))
    assert (np.stack([source[i].picture[..., 0] for i in range(3)]) == PICTURES).all()
    assert [source[i].truth for i in range(3)] == [2, 0, 1]


def test_a_grey_picture_has_three_equal_channels(tmp_path):
    picture = opened(fill(tmp_path))[1].picture
    assert (picture == PICTURES[1][..., None]).all()
    assert picture.shape == (4, 4, 3)


def test_the_caption_is_the_name_of_the_class(tmp_path):
    source = opened(fill(tmp_path), names=("シャツ", "trouser", "bag"))
    assert [source[i].captions["class"] for i in range(3)] == ["bag", "シャツ", "trouser"]


def test_classes_are_the_names(tmp_path):
    assert opened(fill(tmp_path), names=("a", "b", "c")).classes == ("a", "b", "c")


def test_the_split_chooses_the_files(tmp_path):
    fill(tmp_path)
    fill(tmp_path, PICTURES[:1], LABELS[:1], split="t10k")
    assert len(opened(tmp_path, split="t10k")) == 1


def test_pictures_are_brought_to_the_size(tmp_path):
    assert IdxConfig(path=fill(tmp_path)).build(9)[0].picture.shape == (9, 9, 3)


def test_without_a_path_there_are_five_thousand_real_digits():
    source = IdxConfig().build(28)
    assert (len(source), source.classes) == (5000, tuple("0123456789"))
    assert np.bincount(source.labels).tolist() == [500] * 10
    assert source[0].picture.max() > 200 > 50 > source[0].picture[0, 0].max()


# -- what is wrong with a file


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no train-images-idx3-ubyte"):
        opened(tmp_path)


def test_more_pictures_than_labels_are_refused(tmp_path):
    with pytest.raises(UserError, match="3 pictures, 2 labels"):
        opened(fill(tmp_path, labels=LABELS[:2]))


def test_files_of_no_pictures_are_refused(tmp_path):
    with pytest.raises(UserError, match="0 pictures"):
        opened(fill(tmp_path, PICTURES[:0], LABELS[:0]))


def test_a_label_beyond_the_names_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"source\.names: 2 names, but there is a label 2"):
        opened(fill(tmp_path), names=("a", "b"))


def flipped_bit(data: bytes) -> bytes:
    """A gzip file whose compressed part makes no sense, though its beginning does."""
    return data[:12] + bytes([data[12] ^ 0xFF]) + data[13:]


SPOILED = {
    "cut in its bytes": ("x", encoded(PICTURES)[:-1]),
    "cut in its header": ("x", encoded(PICTURES)[:6]),
    "empty": ("x", b""),
    "too long": ("x", encoded(PICTURES) + b"\0"),
    "labels for pictures": ("x", encoded(LABELS)),
    "a web page": ("x", b"<html>404</html>" * 9),
    "a web page called .gz": ("x.gz", b"<html>404</html>" * 9),
    "cut and packed": ("x.gz", gzip.compress(encoded(PICTURES))[:-9]),
    "packed and damaged": ("x.gz", flipped_bit(gzip.compress(encoded(PICTURES)))),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_spoiled_file_is_named(tmp_path, spoiled):
    name, data = SPOILED[spoiled]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: .*fetch it again"):
        read_idx(tmp_path / name, 3)


def test_the_damaged_example_is_damaged_inside():
    with pytest.raises(zlib.error):
        gzip.decompress(SPOILED["packed and damaged"][1])
