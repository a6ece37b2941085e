"""How wide pictures are to their height: told by columns, or by their headers, never decoded."""

import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
import test_parquet
from PIL import Image, ImageFile
from test_pictures import BLUE, RED, chunk, encoded, halves, with_chunks
from test_tar_shards import opened, sample, write

from flowbrush.data import FolderConfig, tar_aspects
from flowbrush.data.columns import aspects_of
from flowbrush.data.pictures import aspect, decode
from flowbrush.data.source import Shaped, Source
from flowbrush.errors import UserError


def aspects(source: Source) -> list[float]:
    assert isinstance(source, Shaped)
    found = np.concatenate([*source.aspects()])
    assert len(found) == len(source)
    return found.tolist()


def picture(width: int, height: int, kind: str = "PNG", **options) -> bytes:
    return encoded(Image.new("RGB", (width, height)), kind, **options)


@pytest.fixture
def undecoded(monkeypatch) -> None:
    """Pillow, unable to decode."""

    def load(*_):
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


# -- of one picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_header_tells_it(kind, undecoded):
    assert aspect(io.BytesIO(picture(6, 4, kind))) == 1.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_that_of_the_picture_as_its_exif_turns_it(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = picture(6, 4, kind, exif=exif)
    assert aspect(io.BytesIO(file)) == (1.5 if orientation < 5 else 4 / 6)
    turned = decode(file, (60, 90), "x") if orientation < 5 else decode(file, (90, 60), "x")
    assert turned.shape[1] / turned.shape[0] == aspect(io.BytesIO(file))


XMP = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {}</rdf:Description>'
ATTRIBUTE = XMP.format('tiff:Orientation="6">').encode()
ELEMENT = XMP.format("><tiff:Orientation>6</tiff:Orientation>").encode()


def itxt(xmp: bytes) -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)


@pytest.mark.parametrize("xmp", [ATTRIBUTE, ELEMENT])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF", "PNG", "PNG, behind"])
def test_it_is_that_of_the_picture_as_its_xmp_alone_turns_it(kind, xmp):
    if kind == "PNG":
        file = with_chunks(encoded(halves(60, 40)), before=itxt(xmp))
    elif kind == "PNG, behind":
        file = with_chunks(encoded(halves(60, 40)), behind=itxt(xmp))
    else:
        file = encoded(halves(60, 40), kind, **{"xmp": xmp} if kind != "TIFF" else {})
        if kind == "TIFF":
            file = encoded(halves(60, 40), kind, tiffinfo={700: xmp})
    found = decode(file, (60, 40), "x").astype(int)
    assert abs(found[5, 20] - RED).max() < 40 and abs(found[55, 20] - BLUE).max() < 40
    assert aspect(io.BytesIO(file)) == 40 / 60


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "PNG, behind"])
def test_other_containers_of_exif_turn_it_too(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "PNG, behind":
        file = with_chunks(encoded(halves(60, 40)), behind=chunk(b"eXIf", exif.tobytes()[6:]))
    else:
        file = encoded(halves(60, 40), kind, exif=exif.tobytes())
    assert aspect(io.BytesIO(file)) == (1.5 if orientation < 5 else 4 / 6)
    size = (40, 60) if orientation < 5 else (60, 40)
    jpeg = encoded(halves(60, 40), "JPEG", exif=exif, quality=100)
    different = abs(decode(file, size, "x").astype(int) - decode(jpeg, size, "x")).max(-1) > 40
    assert different.mean() < 0.1  # but along the edge, where AVIF has fewer colors


def test_what_stands_behind_a_png_is_looked_for_without_decoding(undecoded):
    file = with_chunks(encoded(halves(60, 40)), behind=itxt(ATTRIBUTE))
    assert aspect(io.BytesIO(file)) == 40 / 60


@pytest.mark.parametrize("file", [b"", b"no picture", picture(6, 4)[:20]])
def test_what_has_no_header_has_none(file):
    assert math.isnan(aspect(io.BytesIO(file)))


def test_columns_without_a_number_above_0_tell_nothing():
    width, height = np.array([6, 0, 5, np.nan, -1]), np.array([4, 4, 0, 4, -1])
    np.testing.assert_array_equal(aspects_of(width, height), [1.5, *[np.nan] * 4])
    assert aspects_of(np.array([6, 3]), np.array([4, 4])).tolist() == [1.5, 0.75]


@pytest.mark.parametrize("size", [(8, 2), (2, 8), (16, 4), (1, 9)])
@pytest.mark.parametrize("of", [(1, 400), (400, 1), (1, 1), (37, 23), (23, 37)])
def test_a_picture_of_any_ratio_becomes_the_shape_that_is_asked_for(size, of):
    assert decode(picture(*of, "JPEG"), size, "x").shape == (*size, 3)


def test_the_middle_of_a_picture_is_kept_in_any_shape():
    image = Image.new("RGB", (12, 8), (255, 0, 0))
    image.paste((0, 255, 0), (4, 0, 8, 8))  # the middle third: 4 wide, 8 high
    assert (decode(encoded(image), (8, 4), "x") == (0, 255, 0)).all()
    image.paste((0, 0, 255), (0, 2, 12, 6))  # half of the height
    assert (decode(encoded(image), (4, 12), "x") == (0, 0, 255)).all()


# -- folders


def test_a_folder_reads_headers(tmp_path, undecoded):
    for name, size in {"a": (6, 4), "b": (4, 6), "c": (5, 5)}.items():
        (tmp_path / f"{name}.png").write_bytes(picture(*size))
        (tmp_path / f"{name}.txt").write_text("x")
    (tmp_path / "c.png").write_bytes(b"torn")
    found = aspects(FolderConfig(path=tmp_path).build(4))
    np.testing.assert_allclose(found, [1.5, 4 / 6, np.nan])


def test_a_folder_gives_its_pictures_in_another_shape_and_stays_as_it_was(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(6, 4))
    (tmp_path / "a.txt").write_text("x")
    folder = FolderConfig(path=tmp_path).build(4)
    assert folder.reshaped((2, 8))[0].picture.shape == (2, 8, 3)
    assert folder[0].picture.shape == (4, 4, 3)


# -- tars


def shaped(key: str, w: int, h: int, kind: str = "png", /, **fields) -> list[tuple]:
    made = dict(sample(key, **fields))
    del made[f"{key}.png"]
    options = {"icc_profile": bytes(40_000)} if kind == "jpg" else {}  # a header of 40 kB
    image = picture(w, h, "JPEG" if kind == "jpg" else "PNG", **options)
    return [(f"{key}.{kind}", image), *made.items()]


def test_the_json_of_a_tar_tells_it(tmp_path, undecoded):
    told = shaped("a", 1, 1, width=6, height=4) + shaped("b", 1, 1, width=4, height=4)
    source = opened(write(tmp_path / "a.tar", told))
    assert aspects(source) == [1.5, 1.0]
    assert not list(tmp_path.glob("*.aspects.*"))  # nothing was looked up


def test_the_stored_pictures_sides_go_before_those_of_the_original(tmp_path):
    both = {"width": 6, "height": 4, "original_width": 9, "original_height": 9}
    only = {"original_width": 8, "original_height": 4}
    source = opened(
        write(tmp_path / "a.tar", shaped("a", 1, 1, **both) + shaped("b", 1, 1, **only))
    )
    assert aspects(source) == [1.5, 2.0]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_what_the_json_does_not_tell_is_looked_up_once(tmp_path, monkeypatch, undecoded, kind):
    made = shaped("a", 6, 4, kind) + shaped("b", 9, 9, kind, width=4, height=8)
    source = opened(write(tmp_path / "a.tar", made))
    assert aspects(source) == [1.5, 0.5]
    monkeypatch.setattr(tar_aspects, "_aspect", lambda *_: pytest.fail("looked up again"))
    assert aspects(opened(tmp_path / "a.tar")) == [1.5, 0.5]


def test_of_a_tar_that_was_made_anew_it_is_looked_up_again(tmp_path):
    path = write(tmp_path / "a.tar", shaped("a", 6, 4))
    assert aspects(opened(path)) == [1.5]
    os.utime(write(path, shaped("a", 4, 4)), ns=(1, 1))
    assert aspects(opened(path)) == [1.0]


@pytest.mark.parametrize("damage", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"x" * 100])
def test_a_damaged_file_of_them_is_made_again(tmp_path, damage):
    path = write(tmp_path / "a.tar", shaped("a", 6, 4))
    assert aspects(opened(path)) == [1.5]
    (kept,) = tmp_path.glob("*.aspects.safetensors")
    kept.write_bytes(damage)
    assert aspects(opened(path)) == [1.5]


def test_samples_that_filters_leave_out_have_none(tmp_path):
    made = shaped("a", 6, 4, similarity=0.1) + shaped("b", 4, 4, similarity=0.9)
    assert aspects(opened(write(tmp_path / "a.tar", made), filters=("similarity > 0.5",))) == [1.0]


def test_a_tar_gives_its_pictures_in_another_shape(tmp_path):
    source = opened(write(tmp_path / "a.tar", shaped("a", 6, 4)))
    assert source.reshaped((2, 8))[0].picture.shape == (2, 8, 3)
    assert source[0].picture.shape == (4, 4, 3)


def test_a_remote_tar_that_does_not_tell_is_refused_unfetched(tmp_path, monkeypatch):
    source = opened(write(tmp_path / "a.tar", shaped("a", 6, 4)))
    monkeypatch.setattr(tar_aspects, "is_remote", lambda name: True)
    with pytest.raises(UserError, match="tell no width and height, and it is not fetched"):
        aspects(source)


# -- parquet


def table(path: Path, **sides) -> Path:
    rows = range(7)
    told = {name: [value + i for i in rows] for name, value in sides.items()}
    dropped = {name: row for name, row in test_parquet.coyo(rows).items() if name != "width"}
    return test_parquet.write(path, dropped | told)


@pytest.mark.parametrize("names", [("width", "height"), ("WIDTH", "HEIGHT")])
def test_columns_of_a_table_tell_it(tmp_path, names, undecoded):
    path = table(tmp_path / "a.parquet", **dict(zip(names, (20, 10), strict=True)))
    wanted = [(20 + i) / (10 + i) for i in range(7)]
    np.testing.assert_allclose(aspects(test_parquet.opened(path)), wanted, rtol=1e-6)
    kept = test_parquet.opened(path, filters=("clip_similarity_vitb32 >= 0.25",))
    np.testing.assert_allclose(aspects(kept), wanted[3:], rtol=1e-6)


def test_a_table_gives_its_pictures_in_another_shape(tmp_path):
    source = test_parquet.opened(table(tmp_path / "a.parquet"))
    assert source.reshaped((2, 8))[0].picture.shape == (2, 8, 3)
    assert source[0].picture.shape == (4, 4, 3)


def test_a_table_that_does_not_tell_is_refused(tmp_path):
    with pytest.raises(UserError, match="tells no width and height; leave it at 0"):
        aspects(test_parquet.opened(table(tmp_path / "a.parquet")))
