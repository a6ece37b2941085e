"""Datasets of Hugging Face, made here and read from folders: nothing is fetched."""

import io
import pickle
import re
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
