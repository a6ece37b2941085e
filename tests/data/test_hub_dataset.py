"""Datasets of Hugging Face, made here and read from folders: nothing is fetched."""

import io
import json
import pickle
import re
import zipfile
from contextlib import closing
from itertools import islice
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image, ImageFile
from test_pictures import png_claiming

from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.hub_columns import captions_of
from flowbrush.data.hub_dataset import HubDataset, HubDatasetConfig
from flowbrush.data.source import Source, UnreadablePicture
from flowbrush.errors import UserError


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def png(i: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (i, i, i)).save(file, "PNG")
    return file.getvalue()


def table(rows: int = 5, **columns) -> Dataset:
    """Row i: a picture whose bytes are all i, the text "picture i", a number and a class."""
    features = {
        "image": datasets.Image(),
        "text": Value("string"),
        "number": Value("int64"),
        "label": ClassLabel(names=["cat", "dog"]),
    }
    values = {
        "image": [{"bytes": png(i), "path": None} for i in range(rows)],
        "text": [f"picture {i}" for i in range(rows)],
        "number": list(range(rows)),
        "label": [i % 2 for i in range(rows)],
    }
    values |= {name: column for name, column in columns.items() if column}
    kept = [name for name in values if columns.get(name, True)]
    return Dataset.from_dict(
        {name: values[name] for name in kept},
        Features({name: features.get(name, Value("string")) for name in kept}),
    )


def parquet(folder: Path, made: Dataset | None = None, split: str = "train") -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (made or table()).to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    return folder


def opened(path: Path | str, **choices) -> HubDataset:
    return HubDatasetConfig(name=str(path), **choices).build(4)


def numbers(source: Source) -> list[int]:
    return [int(source[i].picture[0, 0, 0]) for i in range(len(source))]


def refusal(path: Path | str, **choices) -> str:
    with pytest.raises(UserError) as refused:
        opened(path, **choices)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- where a dataset is


def test_a_folder_of_parquet_files_is_read(tmp_path):
    source = opened(parquet(tmp_path / "d"))
    assert numbers(source) == [0, 1, 2, 3, 4] and isinstance(source, Source)
    assert source[3].captions == {"text": "picture 3"} and source.classes == ()


def test_a_dataset_that_was_saved_is_read(tmp_path):
    table().save_to_disk(tmp_path / "one")
    DatasetDict(train=table(2), test=table(3)).save_to_disk(tmp_path / "two")
    assert len(opened(tmp_path / "one")) == 5
    assert len(opened(tmp_path / "two", split="test")) == 3
    assert "has no tset; did you mean 'test'?" in refusal(tmp_path / "two", split="tset")


def test_a_folder_of_pictures_with_metadata_is_read(tmp_path):
    folder = tmp_path / "d/train"
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.png").write_bytes(png(i))
    lines = [f'{{"file_name": "{i}.png", "text": "picture {i}"}}' for i in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    source = opened(tmp_path / "d")
    assert numbers(source) == [0, 1, 2] and source[2].captions == {"text": "picture 2"}
    (folder / "1.png").unlink()
    with pytest.raises(UnreadablePicture, match=r"1\.png\): No such file"):
        source[1]


def zipped(folder: Path, **members: bytes) -> Path:
    """train.zip with three images, their captions, and further members."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "train.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(3):
            file.writestr(f"{i}.png", members.get(f"image_{i}", png(i)))
        rows = [{"file_name": f"{i}.png", "text": f"picture {i}"} for i in range(3)]
        file.writestr("metadata.jsonl", "\n".join(map(json.dumps, rows)))
    return folder


def test_a_zip_of_images_with_metadata_is_read(tmp_path):
    source = opened(zipped(tmp_path / "d"))
    assert numbers(source) == [0, 1, 2] and source[2].captions == {"text": "picture 2"}
    assert numbers(pickle.loads(pickle.dumps(source))) == [0, 1, 2]


def test_what_in_a_zip_cannot_be_read_is_skipped_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("flowbrush.data.hub_dataset.LARGEST_PICTURE", 1_000_000)
    source = opened(zipped(tmp_path / "d", image_1=bytes(1_000_001)))
    with pytest.raises(UnreadablePicture, match=r"1\.png.*over 1 MB"):
        source[1]
    zipfile.ZipFile(tmp_path / "d/train.zip", "w").close()  # another one in its place
    with pytest.raises(UnreadablePicture, match="not in the zip"):
        source[0]
    (tmp_path / "d/train.zip").write_bytes(b"PK torn")
    with pytest.raises(UnreadablePicture, match="a zip that cannot be read"):
        source[0]


def test_a_zip_elsewhere_is_not_read(tmp_path):
    zipped(tmp_path / "elsewhere")
    rows = [{"bytes": None, "path": f"zip://0.png::{tmp_path}/elsewhere/train.zip"}]
    Dataset.from_dict({"image": rows, "text": ["a"]}).save_to_disk(tmp_path / "d")
    with pytest.raises(UnreadablePicture, match="outside of the dataset"):
        opened(tmp_path / "d")[0]


def test_a_saved_single_split_is_that_one_and_no_other(tmp_path):
    table().save_to_disk(tmp_path / "unnamed")
    assert len(opened(tmp_path / "unnamed")) == 5
    found = refusal(tmp_path / "unnamed", split="test")
    assert "source.split" in found and "has no test; it has train, as the only one" in found
    Dataset.from_dict(table().with_format(None)[:], split="test").save_to_disk(tmp_path / "test")
    assert "it has test, as the only one" in refusal(tmp_path / "test")
    assert len(opened(tmp_path / "test", split="test")) == 5


@pytest.mark.parametrize(
    ("split", "found"),
    [
        ("train[1:3]", [1, 2]),
        ("train[:40%]", [0, 1]),
        ("train[4:]+test[:1]", [4, 0]),
        ("all", [0, 1, 2, 3, 4, 0, 1, 2]),
    ],
)
def test_a_part_of_what_was_saved_may_be_read(tmp_path, split, found):
    DatasetDict({"train": table(), "test": table(3)}).save_to_disk(tmp_path / "d")
    assert numbers(opened(tmp_path / "d", split=split)) == found


def test_the_split_may_be_a_part(tmp_path):
    parquet(tmp_path / "d")
    parquet(tmp_path / "d", table(3), "test")
    assert len(opened(tmp_path / "d", split="test")) == 3
    assert numbers(opened(tmp_path / "d", split="train[1:3]")) == [1, 2]


# -- what a row holds


def test_columns_may_be_given_with_their_kinds(tmp_path):
    made = table(front=None).rename_column("image", "front").add_column("ja", ["猫 "] * 5)
    source = opened(parquet(tmp_path / "d", made), captions=("en=text", "ja"), picture="front")
    assert source[1].captions == {"en": "picture 1", "ja": "猫"} and numbers(source)[4] == 4


def with_captions(folder: Path, values: list, name: str = "caption") -> Path:
    """A row for each value."""
    images = [{"bytes": png(i), "path": None} for i in range(len(values))]
    made = Dataset.from_dict({"image": images, name: values})
    made.cast_column("image", datasets.Image()).save_to_disk(folder)
    return folder


FIVE = {f"caption.{i}": f"words {i}" for i in range(5)}


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ([f"words {i}" for i in range(5)], FIVE),
        (["words  0", None, " ", "words 1"], {"caption.0": "words 0", "caption.1": "words 1"}),
        ([{"raw": f"words {i}", "id": i} for i in range(5)], FIVE),
        ({"raw": [f"words {i}" for i in range(5)], "tokens": [["words"]] * 5}, FIVE),
        ({"en": "cat", "ja": "猫"}, {"en": "cat", "ja": "猫"}),
        ({"text": "cat", "url": "x"}, {"caption": "cat"}),
    ],
)
def test_lists_and_structs_of_captions_are_read(tmp_path, value, captions):
    """As Flickr30k and COCO have five of each image."""
    source = opened(with_captions(tmp_path / "d", [value, value]))
    assert source[1].captions == captions


@pytest.mark.parametrize("value", [[], [None], [" "], None])
def test_a_list_without_a_caption_is_skipped(tmp_path, value):
    source = opened(with_captions(tmp_path / "d", [["words"], value]))
    with pytest.raises(UnreadablePicture, match="no caption in caption"):
        source[1]


def test_fields_of_captions_may_be_given(tmp_path):
    folder = with_captions(tmp_path / "d", [{"en": ["cat", "a cat"], "ja": ["猫"], "by": ["x"]}])
    chosen = ("short=caption.en.0", "ja=caption.ja")
    assert opened(folder, captions=chosen)[0].captions == {"short": "cat", "ja.0": "猫"}
    assert "caption has no fr" in refusal(folder, captions=("caption.fr",))


def test_translations_are_captions_by_language(tmp_path):
    features = {"text": datasets.Translation(languages=["en", "ja"])}
    row = {"text": {"en": "cat", "ja": "猫"}}
    found = captions_of((), features, "d")
    assert [one.of(row, "d:0") for one in found] == [{"en": "cat"}, {"ja": "猫"}]


def test_a_caption_that_a_struct_lacks_is_passed_over(tmp_path):
    values = [{"en": "cat", "ja": "猫"}, {"en": "dog", "ja": None}]
    assert opened(with_captions(tmp_path / "d", values))[1].captions == {"en": "dog"}


def test_one_of_two_columns_of_captions_is_enough(tmp_path):
    made = table(text=["a", None, "c", "d", "e"]).add_column("caption", ["v", "w", "x", "y", "z"])
    assert opened(parquet(tmp_path / "d", made))[1].captions == {"caption": "w"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (7, "caption holds .*int64.*, no text"),
        ([7, 8], "caption holds .*, no text"),
        ({"author": "x", "title": "y"}, "caption holds author, title; give one.*caption.author"),
    ],
)
def test_captions_that_are_none_are_refused_at_the_start(tmp_path, value, said):
    assert re.search(f"source.captions: {said}", refusal(with_captions(tmp_path / "d", [value])))


def test_a_column_of_text_is_taken_where_another_of_a_known_name_has_none(tmp_path):
    made = table().add_column("caption", [[1, 2]] * 5)
    assert opened(parquet(tmp_path / "d", made))[0].captions == {"text": "picture 0"}


# -- which column has the images


def with_images(folder: Path, *names: str) -> Path:
    """The images of the i-th column are all i."""
    columns = {n: [{"bytes": png(i), "path": None}] * 2 for i, n in enumerate(names)}
    made = Dataset.from_dict({**columns, "text": ["a", "b"]})
    for name in names:
        made = made.cast_column(name, datasets.Image())
    made.save_to_disk(folder)
    return folder


def test_the_column_called_image_goes_before_masks(tmp_path):
    folder = with_images(tmp_path / "d", "conditioning_image", "mask", "image", "jpg")
    assert numbers(opened(folder)) == [2, 2]
    assert numbers(opened(folder, picture="mask")) == [1, 1]


@pytest.mark.parametrize("names", [("mask", "photo"), ("jpg", "png", "mask")])
def test_columns_of_images_that_no_name_tells_apart_are_refused(tmp_path, names):
    found = refusal(with_images(tmp_path / "d", *names))
    assert "source.picture" in found and ", ".join(n for n in names[:2]) in found


def test_the_only_column_of_images_needs_no_known_name(tmp_path):
    made = Dataset.from_dict({"photo": [png(3)], "vector": [b"abc"], "text": ["a"]})
    made.cast_column("photo", datasets.Image()).save_to_disk(tmp_path / "d")
    assert numbers(opened(tmp_path / "d")) == [3]


@pytest.mark.parametrize("chosen", [{}, {"picture": "image"}])
def test_several_images_a_row_are_refused(tmp_path, chosen):
    rows = {"image": [[{"bytes": png(1), "path": None}] * 2], "text": ["a"]}
    kind = Features({"image": datasets.List(datasets.Image()), "text": Value("string")})
    Dataset.from_dict(rows, kind).save_to_disk(tmp_path / "d")
    assert "source.picture: image" in (found := refusal(tmp_path / "d", **chosen))
    assert "several images a row" in found


def test_undecoded_images_and_paths_are_images_too(tmp_path):
    made = table(text=None).cast_column("image", datasets.Image(decode=False))
    assert numbers(opened(parquet(tmp_path / "a", made))) == [0, 1, 2, 3, 4]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.png").write_bytes(png(9))
    rows = {"image": ["x.png", str(tmp_path / "b/x.png")], "text": ["a", "b"]}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "b")
    assert numbers(opened(tmp_path / "b")) == [9, 9]


@pytest.mark.parametrize("scheme", ["https", "tar"])
def test_addresses_in_the_place_of_images_are_refused_at_the_start(tmp_path, scheme):
    rows = {"image": [f"{scheme}://somewhere/x.png"], "text": ["a"]}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "d")
    assert f"image of {tmp_path / 'd'} holds addresses ({scheme}://)" in refusal(tmp_path / "d")


def test_labels_are_captions_where_there_are_no_others(tmp_path):
    source = opened(parquet(tmp_path / "d", table(text=None)))
    assert [source[i].captions for i in (0, 1)] == [{"label": "cat"}, {"label": "dog"}]
    assert source.classes == ("cat", "dog")


def test_labels_may_be_given(tmp_path):
    source = opened(parquet(tmp_path / "d"), captions=("class=label", "text"))
    assert source[1].captions == {"class": "dog", "text": "picture 1"}
    assert source.classes == ("cat", "dog")


def test_bytes_without_a_picture_feature_are_pictures_too(tmp_path):
    made = Dataset.from_dict({"jpg": [png(7)], "caption": ["a"]})
    assert numbers(opened(parquet(tmp_path / "d", made))) == [7]


def test_other_columns_are_left_alone(tmp_path):
    assert opened(parquet(tmp_path / "d"))._rows.column_names == ["image", "text"]


def test_a_place_outside_is_an_index_error(tmp_path):
    source = opened(parquet(tmp_path / "d"))
    for i in (-1, 5):
        with pytest.raises(IndexError):
            source[i]


def test_it_goes_to_another_process(tmp_path):
    source = opened(parquet(tmp_path / "d"))
    assert numbers(pickle.loads(pickle.dumps(source))) == [0, 1, 2, 3, 4]


def test_worker_processes_read_the_same(tmp_path):
    source = opened(parquet(tmp_path / "d"))

    def captions(workers: int) -> list[list[str]]:
        with closing(batches(source, BatchConfig(size=5, workers=workers), 0, 0)) as read:
            return [batch.captions for batch in islice(read, 2)]

    assert captions(0) == captions(1)


# -- what is skipped


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (None, "no picture"),
        ({"bytes": None, "path": None}, "no picture"),
        ({"bytes": b"<html>", "path": None}, "not a picture of a known kind"),
        ({"bytes": None, "path": "/nowhere/x.png"}, "a file outside of the dataset"),
        ({"bytes": png_claiming(100_000, 100_000), "path": None}, "pixels"),
    ],
)
def test_a_broken_picture_is_skipped_before_it_is_decoded(tmp_path, monkeypatch, held, said):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    image = pa.array([{"bytes": png(1), "path": None}, held], kind)
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"image": image, "text": ["a", "b"]}), tmp_path / "d/train.parquet")
    source = opened(tmp_path / "d")

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(UnreadablePicture, match=f"d:1.*{said}"):
        source[1]


@pytest.mark.parametrize("text", ["", None, " "])
def test_a_row_without_a_caption_is_skipped(tmp_path, text):
    source = opened(parquet(tmp_path / "d", table(text=["a", text, "b", "c", "d"])))
    with pytest.raises(UnreadablePicture, match="d:1: no caption in text"):
        source[1]


def test_a_label_that_is_missing_is_skipped(tmp_path):
    source = opened(parquet(tmp_path / "d", table(text=None, label=[0, -1, None, 1, 0])))
    for i in (1, 2):
        with pytest.raises(UnreadablePicture, match="no caption in label"):
            source[i]


# -- what is refused


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"picture": "imgae"}, "source.picture: .* did you mean 'image'"),
        ({"picture": "number"}, "source.picture: number holds no pictures"),
        ({"captions": ("txet",)}, "source.captions: .* did you mean 'text'"),
        ({"captions": ("a=text", "a=label")}, "source.captions: a is given twice"),
        ({"split": "tarin"}, "source.name: .*tarin"),
        ({"split": "train[:0]"}, "source.name: .* no data"),
    ],
)
def test_wrong_choices_are_named(tmp_path, choices, said):
    assert re.search(said, refusal(parquet(tmp_path / "d"), **choices))


def test_no_columns_of_pictures_or_captions_are_told(tmp_path):
    assert "source.picture: no column" in refusal(parquet(tmp_path / "a", table(image=None)))
    made = table(text=None, label=None)
    assert "source.captions: no column" in refusal(parquet(tmp_path / "b", made))


@pytest.mark.parametrize("name", ["someone/some-pictures", "/nowhere/at/all", ""])
def test_what_cannot_be_had_is_told_in_one_line(name):
    assert refusal(name).startswith("source.name: ")


def test_code_in_a_dataset_is_not_run(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "d.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "source.name" in refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_a_picture_in_a_file_elsewhere_is_not_shown(tmp_path):
    inside, secret = tmp_path / "mine" / "a.png", tmp_path / "secret.png"
    inside.parent.mkdir()
    for file in (inside, secret):
        file.write_bytes(png(1))
    rows = [{"bytes": None, "path": str(file)} for file in (inside, secret)]
    table = datasets.Dataset.from_dict({"image": rows, "text": ["a", "b"]})
    table.save_to_disk(tmp_path / "mine")
    source = opened(tmp_path / "mine")
    assert source[0].captions == {"text": "a"}
    with pytest.raises(UnreadablePicture, match="a file outside of the dataset"):
        source[1]
