"""One policy for rows that cannot be learned, whatever the source: skipped, with their names."""

import io
import os
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numbered import Plain
from PIL import Image

from flowbrush.condition import MAX_CAPTION
from flowbrush.data import ParquetConfig
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.source import (
    Example,
    IncompleteExample,
    Source,
    UnreadablePicture,
    read_example,
    too_many,
)
from flowbrush.errors import UserError
from flowbrush.train.previews import preview_prompts


def png(red: int = 200) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(data, "PNG")
    return data.getvalue()


def parquet(folder: Path, *files: dict[str, Any]) -> Path:
    for number, columns in enumerate(files):
        pq.write_table(pa.table(columns), folder / f"{number}.parquet")
    return folder


def reasons(source: Source) -> list[str]:
    """Of each example that cannot be learned why; "" of the others."""
    found = []
    for i in range(len(source)):
        try:
            read_example(source, i)
            found.append("")
        except UnreadablePicture as error:
            found.append(error.reason)
    return found


class Captioned(Plain):
    """Example i has what `captions` says of it, and no other."""

    def __getitem__(self, i: int) -> Example:
        texts = {0: "x" * (MAX_CAPTION + 1), 1: "one"}
        return Example(np.zeros((1, 1, 3), np.uint8), {"en": texts.get(i, f"{i}")})


# -- any source


def test_a_caption_that_no_encoder_takes_is_skipped_with_its_name() -> None:
    with closing(batches(Captioned(4), BatchConfig(size=8), 0, 0)) as loader:
        found = list(islice(loader, 2))
    assert {caption for batch in found for caption in batch.captions} == {"one", "2", "3"}
    broken = [str(error) for batch in found for error in batch.broken]
    assert set(broken) == {"example 0: a caption of 2,001 characters, over 2,000"}


def test_a_caption_that_is_too_long_gives_way_to_one_that_is_not() -> None:
    class Both(Plain):
        def __getitem__(self, i: int) -> Example:
            captions = {"long": "x" * 9_999, "short": "s"}
            return Example(np.zeros((1, 1, 3), np.uint8), captions, name="a.tar: sample 3")

    assert read_example(Both(1), 0).captions == {"short": "s"}
    with pytest.raises(UnreadablePicture, match=r"a\.tar: sample 3: a caption of 9,999"):
        read_example(Both(1), 0, ["long"])
    with pytest.raises(IncompleteExample, match="no caption ja; there is long, short"):
        read_example(Both(1), 0, ["ja"])


def test_a_caption_of_half_a_surrogate_pair_is_skipped() -> None:
    class Halved(Plain):
        def __getitem__(self, i: int) -> Example:
            return Example(np.zeros((1, 1, 3), np.uint8), {"en": "\ud83d"}, truth="a.parquet:7")

    with pytest.raises(UnreadablePicture, match=r"a\.parquet:7: a caption that is no Unicode"):
        read_example(Halved(1), 0)


def test_rows_without_the_wanted_kind_are_skipped() -> None:
    class Partly(Plain):
        def __getitem__(self, i: int) -> Example:
            kinds = ("en", "ja") if i % 2 else ("ja",)
            return Example(np.zeros((1, 1, 3), np.uint8), {kind: f"{kind} {i}" for kind in kinds})

    config = BatchConfig(size=8, captions=(("en", 1.0),))
    with closing(batches(Partly(10), config, 0, 0)) as loader:
        found = list(islice(loader, 2))
    assert all(caption[:2] == "en" for batch in found for caption in batch.captions)
    assert all(isinstance(error, IncompleteExample) for batch in found for error in batch.broken)


@pytest.mark.parametrize(
    ("broken", "read", "size", "many"),
    [
        *[(1, 8, 8, True), (2, 20, 20, False), (3, 20, 20, True), (64, 700, 700, False)],
        *[(71, 700, 700, True), (15, 100, 700, False), (30, 100, 700, True), (0, 0, 0, False)],
    ],
)
def test_a_tenth_is_too_many_where_it_is_no_chance(
    broken: int, read: int, size: int, many: bool
) -> None:
    assert too_many(broken, read, size) == many


# -- prompts of previews


def test_prompts_are_of_readable_examples_wherever_they_are() -> None:
    source = Plain(700, broken=frozenset(range(64)))
    prompts = preview_prompts((), source)
    assert len(prompts) == 16 and prompts == preview_prompts((), source)
    assert preview_prompts((), Plain(700)) == [f"{i}" for i in range(16)]


def test_a_source_of_which_nothing_is_readable_is_one_line() -> None:
    with pytest.raises(UserError, match=r"none of 1,064 examples .* 0\.png: torn"):
        preview_prompts((), Plain(100, broken=frozenset(range(100))))


# -- parquet


def test_a_row_has_those_captions_that_it_has(tmp_path: Path) -> None:
    captions = {"caption": ["a", None, "c", " "], "text": [None, "tb", "tc", None]}
    source = ParquetConfig(path=parquet(tmp_path, {"image": [png()] * 4, **captions})).build(8)
    assert [dict(source[i].captions) for i in range(3)] == [
        {"caption": "a"},
        {"text": "tb"},
        {"caption": "c", "text": "tc"},
    ]
    with pytest.raises(IncompleteExample, match=r"0\.parquet:3: no caption in caption, text"):
        source[3]


def test_rows_of_failed_downloads_are_counted_at_the_start_and_stop_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """img2dataset writes them without a picture."""
    image = [png() if i % 3 else None for i in range(30)]
    path = parquet(tmp_path, {"jpg": image, "caption": [f"{i}" for i in range(30)]})
    source = ParquetConfig(path=path).build(8)
    assert "10 of 30 rows without a picture; they are skipped" in capsys.readouterr().err
    assert source.origin().left_out == {"without a picture": 10}
    with closing(batches(source, BatchConfig(size=30), 0, 0)) as loader:
        batch = next(loader)
    assert batch.broken and all(isinstance(error, IncompleteExample) for error in batch.broken)


def test_a_text_that_is_not_utf_8_is_a_broken_row(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")]
    )
    source = ParquetConfig(path=parquet(tmp_path, {"image": [png()] * 2, "caption": texts})).build(
        8
    )
    assert reasons(source) == ["", "no UTF-8 in caption"]


BYTES = pa.array([png()] * 4)
TEXTS = pa.array(list("abcd"))


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("caption", pa.array([["a", "b"]] * 4)),
        ("caption", pa.array([1, 2, 3, 4])),
        ("image", pa.array(list("abcd"))),
        ("image", pa.array([{"path": "a.jpg"}] * 4)),
    ],
)
def test_columns_of_other_types_are_refused_at_the_start(
    tmp_path: Path, column: str, other: pa.Array
) -> None:
    """huggingface/dataset-viewer#2625."""
    first = {"image": BYTES, "caption": TEXTS}
    path = parquet(tmp_path, first, {**first, column: other})
    with pytest.raises(UserError, match=rf"1\.parquet: {column} is .* there, and .* in .*0\.parq"):
        ParquetConfig(path=path).build(8)


@pytest.mark.parametrize(
    ("column", "other", "reason"),
    [
        ("caption", TEXTS.cast(pa.large_string()), ""),
        ("caption", TEXTS.dictionary_encode(), ""),
        ("caption", pa.nulls(4), "no caption in caption"),
        ("image", pa.array([{"bytes": png(), "path": "x"}] * 4), ""),
        ("image", BYTES.cast(pa.large_binary()), ""),
        ("image", pa.nulls(4), "no picture in this row"),
        ("image", pa.array([{"bytes": None, "path": "x"}] * 4), "no picture in this row"),
        ("image", pa.array([b"", b"<html>", None, png()[:30]]), "no picture in this row"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_columns_that_mean_the_same_are_read(
    tmp_path: Path, column: str, other: pa.Array, reason: str, turned: bool
) -> None:
    first = {"image": BYTES, "caption": TEXTS}
    files = [first, {**first, column: other}]
    if turned and (column == "image" or reason):
        files[0], files[1] = files[1], files[0]
        if column == "image" and reason and not pa.types.is_binary(other.type):
            return  # without one picture in it, the first file does not tell its column
    found = reasons(ParquetConfig(path=parquet(tmp_path, *files)).build(8))
    there, others = (found[:4], found[4:]) if turned and files[0] is not first else (
        found[4:], found[:4])  # fmt: skip
    assert others == [""] * 4
    assert there[0] == reason


def test_a_damaged_group_of_rows_is_broken_rows_and_a_changed_file_is_not(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"image": [png(i) for i in range(9)], "caption": list("abcdefghi")})
    file = path / "0.parquet"
    source = ParquetConfig(path=path).build(8)
    data = bytearray(file.read_bytes())
    data[4:400] = b"\xff" * 396
    file.write_bytes(data)
    with pytest.raises(UnreadablePicture, match=r"0\.parquet:3: .*a damaged group of rows"):
        source[3]
    os.truncate(file, len(data) - 9)
    with pytest.raises(UserError, match=r"0\.parquet: a damaged group of rows"):
        source[3]


def test_a_file_without_what_others_tell_of_licence_and_size_is_no_trouble(tmp_path: Path) -> None:
    first = {
        "image": BYTES,
        "caption": TEXTS,
        "license": TEXTS,
        "width": [8] * 4,
        "height": [4] * 4,
    }
    path = parquet(tmp_path, first, {"image": BYTES, "caption": TEXTS, "license": [1, 2, 3, 4]})
    source = ParquetConfig(path=path).build(8)
    assert sum(source.origin().licences.values()) == 4
    ratios = np.concatenate(list(source.aspects()))
    np.testing.assert_array_equal(ratios, [2.0] * 4 + [np.nan] * 4)
