"""Rows of parquet files, as COYO, LAION, img2dataset and Hugging Face lay them out."""

import io
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile
from test_pictures import png_claiming

from flowbrush import config_io
from flowbrush.data import row_groups
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.filters import OPERATORS, parse
from flowbrush.data.parquet import Parquet, ParquetConfig
from flowbrush.data.row_groups import kept_by
from flowbrush.data.source import Source, UnreadablePicture
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig


def png(i: int) -> bytes:
    """A picture whose bytes are all i."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (i, i, i)).save(file, "PNG")
    return file.getvalue()


def coyo(rows: range) -> dict:
    """COYO's columns; row i is similar by i / 10, and every fifth has no watermark score."""
    return {
        "id": list(rows),
        "text": [f"picture {i}" for i in rows],
        "image": [png(i) for i in rows],
        "width": [200 + i for i in rows],
        "clip_similarity_vitb32": [i / 10 for i in rows],
        "watermark_score": [None if i % 5 == 0 else i / 100 for i in rows],
    }


def write(path: Path, columns: dict, group: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def two_files(folder: Path) -> Path:
    write(folder / "b.parquet", coyo(range(7, 12)))
    write(folder / "a.parquet", coyo(range(7)))
    return folder


def opened(path: Path, size: int = 4, **choices) -> Parquet:
    return ParquetConfig(path=path, **choices).build(size)


def numbers(source: Source) -> list[int]:
    """Of every row, from its picture; its caption says the same."""
    found = [(source[i].picture[0, 0, 0], source[i].captions) for i in range(len(source))]
    assert all(f"picture {n}" in captions.values() for n, captions in found)
    return [int(n) for n, _ in found]


def refusal(path: Path, **choices) -> str:
    with pytest.raises(UserError) as refused:
        opened(path, **choices)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- what is read


def test_rows_come_in_the_order_of_files_and_rows(tmp_path):
    source = opened(two_files(tmp_path))
    assert numbers(source) == list(range(12)) and source.shards == (7, 5)
    assert isinstance(source, Source) and (source.classes, source.attribution) == ((), "")


@pytest.mark.parametrize("path", ["deep/a.parquet", "deep", ".", "*/a.parq*", "**/*.parquet"])
def test_a_path_is_a_file_a_folder_or_a_glob(tmp_path, path):
    write(tmp_path / "deep/a.parquet", coyo(range(5)))
    write(tmp_path / "deep/.trash/a.parquet", coyo(range(5)))
    (tmp_path / "deep/readme.md").write_text("x")
    assert len(opened(tmp_path / path)) == 5


def test_truth_is_the_file_and_its_row(tmp_path):
    source = opened(two_files(tmp_path), filters=("width > 203",))
    assert [source[i].truth for i in (0, 3)] == [
        f"{tmp_path}/a.parquet:4",
        f"{tmp_path}/b.parquet:0",
    ]


def test_a_place_outside_is_an_index_error(tmp_path):
    source = opened(two_files(tmp_path))
    for i in (-1, 12):
        with pytest.raises(IndexError):
            source[i]


def struct(rows: range) -> list[dict]:
    return [{"bytes": png(i), "path": f"{i}.png"} for i in rows]


@pytest.mark.parametrize("column", ["image", "jpg", "webp", "whatever"])
@pytest.mark.parametrize("held", [lambda r: [png(i) for i in r], struct], ids=["bytes", "struct"])
def test_the_column_of_pictures_is_found(tmp_path, column, held):
    write(tmp_path / "x.parquet", {"text": ["picture 0", "picture 1"], column: held(range(2))})
    assert numbers(opened(tmp_path)) == [0, 1]


def test_large_and_dictionary_columns_are_read(tmp_path):
    text = pa.array(["picture 3", "picture 3"]).dictionary_encode()
    image = pa.array([png(3)] * 2, pa.large_binary())
    write(tmp_path / "x.parquet", {"text": text, "image": image})
    assert numbers(opened(tmp_path)) == [3, 3]


@pytest.mark.parametrize("column", ["caption", "text", "TEXT", "alt_text", "prompt"])
def test_the_column_of_captions_is_found_and_names_their_kind(tmp_path, column):
    write(tmp_path / "x.parquet", {"url": ["u"], "image": [png(0)], column: ["赤い\n 猫 "]})
    assert opened(tmp_path)[0].captions == {column: "赤い 猫"}


def test_columns_of_captions_may_be_given_with_their_kinds(tmp_path):
    columns = {"image": [png(0)], "text": ["a"], "caption_ja": ["猫"], "a=b": ["c"]}
    write(tmp_path / "x.parquet", columns)
    source = opened(tmp_path, captions=("text", "ja=caption_ja", "a=b"))
    assert source[0].captions == {"text": "a", "ja": "猫", "a=b": "c"}


def test_short_and_long_captions_are_found(tmp_path):
    columns = {"image": [png(0)], "long_caption": ["a long one"], "short_caption": ["one"]}
    assert opened(write(tmp_path / "x.parquet", columns))[0].captions == {
        "short": "one",
        "long": "a long one",
    }


# -- filters


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ((), range(12)),
        (("clip_similarity_vitb32 >= 0.3",), range(3, 12)),
        (("clip_similarity_vitb32 >= 0.3", "width < 205"), [3, 4]),
        (("watermark_score < 0.5",), [1, 2, 3, 4, 6, 7, 8, 9, 11]),
        (("watermark_score != 0.01",), [2, 3, 4, 6, 7, 8, 9, 11]),
        (("text == 'picture 8'",), [8]),
        (("id == 11",), [11]),
    ],
)
def test_rows_that_every_filter_keeps_are_left(tmp_path, filters, left):
    source = opened(two_files(tmp_path), filters=filters)
    assert numbers(source) == list(left)
    assert source.shards == (sum(i < 7 for i in left), sum(i >= 7 for i in left))


def test_what_each_filter_dropped_is_counted(tmp_path):
    source = opened(two_files(tmp_path), filters=("watermark_score < 0.5", "width >= 206"))
    assert str(source.tally) == (
        "5 of 12 kept; dropped: 3 by watermark_score < 0.5, 4 by width >= 206"
    )
    assert source.tally.kept == len(source)


COLUMNS = [
    pa.array([1, None, 2, 3, -1]),
    pa.array([1.0, None, float("nan"), 2.0, 3.5]),
    pa.array([1.0, None, float("nan"), 2.0, 3.5], pa.float32()),
    pa.array([1.0, 2.0, float("inf")], pa.float16()),
    pa.array([True, False, None]),
    pa.array([None, None]),
    pa.array(["b", None, "", "c"]),
    pa.array(["b", None, "", "c", "b"]).dictionary_encode(),
]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type))
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_column_is_filtered_as_its_values_are_one_by_one(column, operator):
    text = "b" in column.to_pylist()
    if not text or operator in ("==", "!="):
        one = parse(f"a {operator} {'b' if text else 2}")
        kept = kept_by(one, pa.chunked_array([column, column[:1]]), Path("x"))
        values = [*column.to_pylist(), column[0].as_py()]
        assert kept.tolist() == [one.keeps(value) for value in values]


def test_a_filter_of_an_unknown_column_is_refused(tmp_path):
    said = refusal(two_files(tmp_path), filters=("widht > 3",))
    assert said.startswith(f"source.filters: {tmp_path}/a.parquet has no column 'widht', only id,")
    assert said.endswith("did you mean 'width'?")


@pytest.mark.parametrize("text", ["text >= 3", "width == wide", "image == x"])
def test_a_filter_of_another_kind_is_refused(tmp_path, text):
    assert f"a.parquet has {'string' if text[0] == 't' else ''}" in refusal(
        two_files(tmp_path), filters=(text,)
    )


def test_where_no_row_is_left_the_counts_are_told(tmp_path):
    said = refusal(two_files(tmp_path), filters=("width > 900",))
    assert "no rows left, 0 of 12 kept; dropped: 12 by width > 900" in said


def test_filters_read_their_own_columns_only(tmp_path, monkeypatch):
    asked, group = [], row_groups.group
    monkeypatch.setattr(row_groups, "group", lambda *a: asked.append(tuple(a[2])) or group(*a))
    opened(two_files(tmp_path), filters=("width > 203", "id > 0"))
    assert set(asked) == {("id", "width")}


# -- what is kept in memory


@pytest.fixture
def decoded(monkeypatch) -> list[tuple[str, int]]:
    """Which groups of rows were decoded."""
    asked, group = [], row_groups.group

    def counted(path, number, wanted):
        asked.append((path.name, number))
        return group(path, number, wanted)

    monkeypatch.setattr(row_groups, "group", counted)
    return asked


def test_lengths_come_from_the_footers(tmp_path, decoded):
    assert len(opened(two_files(tmp_path))) == 12 and decoded == []


def test_a_group_of_rows_is_decoded_once(tmp_path, decoded):
    source = opened(two_files(tmp_path))
    for i in (0, 2, 1, 0, 11):
        source[i]
    assert decoded == [("a.parquet", 0), ("b.parquet", 1)]


def test_no_more_is_kept_than_was_said(tmp_path, decoded):
    source = opened(two_files(tmp_path))
    source._cache.most = 0
    for i in (0, 1, 3, 0):
        source[i]
    assert decoded == [("a.parquet", n) for n in (0, 1, 0)]
    assert len(source._cache._tables) == 1


def test_a_group_of_rows_that_is_too_large_is_refused_unread(tmp_path, decoded):
    noise = np.random.default_rng(0).bytes(2**20)
    columns = {"text": ["a"] * 3, "image": [noise, noise[::-1], png(0)], "other": [noise] * 3}
    write(tmp_path / "x.parquet", columns)
    assert "source.cache: 1 MiB, but a group of rows of" in refusal(tmp_path, cache=1)
    assert "takes 3; give that, or write" in refusal(tmp_path, cache=1)
    assert len(opened(tmp_path, cache=3)) == 3 and decoded == []


def test_what_was_asked_for_longest_ago_goes_first(tmp_path, decoded):
    source = opened(two_files(tmp_path))
    source[0]
    source._cache.most = 2 * source._cache.bytes + 100
    for i in (3, 0, 7, 0, 3):
        source[i]
    names = [("a.parquet", 0), ("a.parquet", 1), ("b.parquet", 0), ("a.parquet", 1)]
    assert decoded == names and source._cache.bytes <= source._cache.most


def test_threads_read_the_same(tmp_path):
    source = opened(two_files(tmp_path))
    source._cache.most = 0
    places = [int(i) for i in np.random.default_rng(0).integers(0, 12, 100)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: int(source[i].picture[0, 0, 0]), places))
    assert found == places


def test_it_goes_to_another_process_without_what_it_decoded(tmp_path):
    source = opened(two_files(tmp_path), filters=("width > 200",))
    source[0]
    data = pickle.dumps(source)
    assert png(1) not in data and numbers(pickle.loads(data)) == list(range(1, 12))


def test_worker_processes_read_the_same(tmp_path):
    source = opened(two_files(tmp_path))

    def captions(workers: int) -> list[list[str]]:
        with closing(batches(source, BatchConfig(size=4, workers=workers), 0, 0)) as read:
            return [batch.captions for batch in islice(read, 2)]

    assert captions(0) == captions(1)


# -- latents

LATENTS = np.arange(3 * 2 * 4 * 4, dtype=np.float16).reshape(3, 2, 4, 4)  # n c h w

FORMS = {
    "lists": pa.array(LATENTS.tolist(), pa.list_(pa.list_(pa.list_(pa.float32())))),
    "16 bits": pa.array(
        [[[list(row) for row in c] for c in n] for n in LATENTS],
        pa.list_(pa.list_(pa.list_(pa.float16()))),
    ),
    "lists of a fixed length": pa.array(
        LATENTS.tolist(), pa.list_(pa.list_(pa.list_(pa.float32(), 4), 4), 2)
    ),
    "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray(LATENTS),
    "flat": pa.array(LATENTS.reshape(3, -1).tolist(), pa.list_(pa.float64())),
    "bytes": pa.array([n.tobytes() for n in LATENTS]),
}


@pytest.mark.parametrize("form", FORMS)
def test_latents_are_read_in_every_form(tmp_path, form):
    write(tmp_path / "x.parquet", {"text": list("abc"), "latent": FORMS[form]}, 2)
    source = opened(tmp_path, size=32, latents="latent", shape=(2, 4, 4))
    for i in range(3):
        assert source[i].picture.dtype == np.float16
        assert (source[i].picture == LATENTS[i].transpose(1, 2, 0)).all()


def test_latents_are_found_where_there_are_no_pictures(tmp_path):
    write(tmp_path / "x.parquet", {"text": list("abc"), "moments": FORMS["lists"]})
    assert opened(tmp_path, size=32)[0].picture.shape == (4, 4, 2)
    write(tmp_path / "x.parquet", {**coyo(range(3)), "moments": FORMS["lists"]})
    assert opened(tmp_path)[0].picture.shape == (4, 4, 3)


def test_latents_of_another_size_are_refused(tmp_path):
    write(tmp_path / "x.parquet", {"text": list("abc"), "latent": FORMS["lists"]})
    assert "size: 30 pixels" in refusal_of_size(tmp_path, 30)


def refusal_of_size(path: Path, size: int) -> str:
    with pytest.raises(UserError) as refused:
        opened(path, size)
    return str(refused.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "no latents"),
        ([[[1.0] * 8] * 8] * 2, r"latents of \(8, 8, 2\), others of \(4, 4, 2\)"),
        ([[[1.0] * 4, [1.0] * 3]] * 2, "differ in length"),
        ([[[1e9] * 4] * 4] * 2, "16 bits"),
        ([[[None] * 4] * 4] * 2, "gaps"),
        ([[None, [1.0] * 4]] * 2, "differ in length"),
    ],
)
def test_latents_that_do_not_fit_the_others_are_skipped(tmp_path, value, said):
    kind = pa.list_(pa.list_(pa.list_(pa.float32())))
    latents = pa.array([LATENTS[0].tolist(), value], kind)
    source = opened(write(tmp_path / "x.parquet", {"text": ["a", "b"], "latent": latents}), 32)
    with pytest.raises(UnreadablePicture, match=rf"x\.parquet:1: .*{said}"):
        source[1]


# -- what cannot be read


@pytest.mark.parametrize(
    ("picture", "said"),
    [(None, "no picture"), (b"", "no picture"), (b"<html>", "not a picture of a known kind")],
)
def test_a_row_without_a_picture_is_skipped(tmp_path, picture, said):
    write(tmp_path / "x.parquet", {"text": ["a", "b"], "jpg": [png(0), picture]})
    with pytest.raises(UnreadablePicture, match=rf"x\.parquet:1: {said}"):
        opened(tmp_path)[1]


def test_a_struct_that_names_a_file_only_is_skipped(tmp_path):
    held = pa.array([{"bytes": None, "path": "/etc/passwd"}],
                    pa.struct({"bytes": pa.binary(), "path": pa.string()}))  # fmt: skip
    write(tmp_path / "x.parquet", {"text": ["a"], "image": held})
    with pytest.raises(UnreadablePicture, match="no picture"):
        opened(tmp_path)[0]


@pytest.mark.parametrize("caption", [None, "", " \n"])
def test_a_row_without_a_caption_is_skipped(tmp_path, caption):
    write(tmp_path / "x.parquet", {"text": ["a", caption], "jpg": [png(0), png(1)]})
    with pytest.raises(UnreadablePicture, match=r"x\.parquet:1: no caption in text"):
        opened(tmp_path)[1]


def test_a_picture_far_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    def load(self):
        raise AssertionError("decoded")

    write(tmp_path / "x.parquet", {"text": ["a"], "jpg": [png_claiming(100_000, 100_000)]})
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(UnreadablePicture, match=r"x\.parquet:0: .*pixels"):
        opened(tmp_path)[0]


# -- what is wrong with a file


@pytest.mark.parametrize("address", ["url", "URL", "image_url"])
def test_addresses_without_pictures_are_to_be_downloaded_first(tmp_path, address):
    write(tmp_path / "x.parquet", {address: ["https://x"], "text": ["a"], "width": [1]})
    said = refusal(tmp_path)
    assert f"column {address}" in said and f"--url_col {address} --caption_col text" in said
    assert "img2dataset" in said


def test_unknown_columns_of_pictures_are_told(tmp_path):
    write(tmp_path / "x.parquet", {"front": [png(0)], "back": [png(1)], "text": ["picture 1"]})
    assert "among front, back, text; give one with --source.picture" in refusal(tmp_path)
    assert numbers(opened(tmp_path, picture="back")) == [1]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            {"picture": "imgae"},
            "source.picture: .* has no column 'imgae', only .*; did you mean 'image'",
        ),
        ({"picture": "width"}, "source.picture: width .* holds int64"),
        ({"latents": "latent"}, "source.latents: .* has no column 'latent'"),
        (
            {"captions": ("txet",)},
            "source.captions: .* has no column 'txet', only .*; did you mean 'text'",
        ),
        ({"captions": ("en=txet",)}, "source.captions: .* has no column 'txet'"),
        ({"captions": ("width",)}, "source.captions: width .* holds int64, no text"),
        ({"captions": ("a=text", "a=text")}, "source.captions: a is given twice"),
        ({"picture": "image", "latents": "x"}, "source: a picture column and a latents column"),
        ({"cache": 0}, "source.cache: 0 MiB"),
    ],
)
def test_wrong_columns_are_named(tmp_path, choices, said):
    assert re.match(said, refusal(two_files(tmp_path), **choices))


def test_no_captions_are_told(tmp_path):
    write(tmp_path / "x.parquet", {"image": [png(0)], "label": [3]})
    assert "no column of captions is known among image, label" in refusal(tmp_path)


def test_a_file_that_lacks_a_column_of_the_others_is_named(tmp_path):
    two_files(tmp_path)
    write(tmp_path / "c.parquet", {"image": [png(0)]})
    assert f"{tmp_path}/c.parquet has no column 'text'" in refusal(tmp_path)


def test_nothing_there_is_told(tmp_path):
    assert str(tmp_path / "gone") in refusal(tmp_path / "gone")
    assert "no *.parquet or *.parq there" in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"<html>404</html>" * 99])
def test_what_is_no_parquet_is_named(tmp_path, data):
    (tmp_path / "x.parquet").write_bytes(data)
    assert "x.parquet: not to be read as parquet" in refusal(tmp_path)


def test_a_file_of_no_rows_is_refused(tmp_path):
    write(
        tmp_path / "x.parquet",
        {"text": pa.array([], pa.string()), "jpg": pa.array([], pa.binary())},
    )
    assert "no rows left" in refusal(tmp_path)


def test_a_run_remembers_what_it_read(tmp_path):
    config = ExperimentConfig(source=ParquetConfig(captions=("text",), filters=("a > 1",)))
    assert config_io.from_json(ExperimentConfig, config_io.to_json(config), "x") == config
