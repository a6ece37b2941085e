"""Tar shards: which samples they give, what is left out and told, and what is never trusted."""

import io
import json
import os
import pickle
import random
import re
import struct
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowbrush import config_io
from flowbrush.data import TarShardsConfig, tar_index, tar_samples
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.source import UnreadablePicture
from flowbrush.data.tar_shards import TarShards
from flowbrush.errors import UserError

RED = (255, 0, 0)
Members = list[tuple[str, bytes]]


def png(colour: tuple[int, int, int] = RED, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 6), colour).save(file, kind)
    return file.getvalue()


def sample(key: str, caption: str | None = None, **fields) -> Members:
    """A picture that knows its caption's hash; a .json where there are fields."""
    caption = f"a {key}" if caption is None else caption
    made = [(f"{key}.png", png(hue(caption)))]
    if fields:
        made.append((f"{key}.json", json.dumps(fields).encode()))
    return [*made, (f"{key}.txt", caption.encode())]


def hue(caption: str) -> tuple[int, int, int]:
    red, green, blue, _ = struct.pack("<I", zlib.crc32(caption.encode()))
    return red, green, blue


def write(path: Path, made: Members, form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in made:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def opened(path: Path | str, **choices) -> TarShards:
    choices.setdefault("cache", Path(str(path)).parent / "cache")
    return TarShardsConfig(path=str(path), **choices).build(4)


def captions(source: TarShards) -> list[str]:
    return [source[i].captions["caption"] for i in range(len(source))]


def refusal(path: Path | str, **choices) -> str:
    with pytest.raises(UserError) as refused:
        opened(path, **choices)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def only(tmp_path: Path, made: Members, **choices) -> TarShards:
    return opened(write(tmp_path / "a.tar", made), **choices)


CATS = sample("cat") + sample("tom") + sample("kitten")


# -- samples


def test_a_sample_is_a_picture_and_its_caption(tmp_path):
    source = only(tmp_path, CATS)
    assert captions(source) == ["a cat", "a tom", "a kitten"]
    assert all((source[i].picture == hue(source[i].captions["caption"])).all() for i in range(3))


def test_the_config_goes_through_json(tmp_path):
    config = TarShardsConfig(path="x", captions=("txt",), filters=("a > 1",))
    assert config_io.from_json(TarShardsConfig, config_io.to_json(config), "source") == config


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("capital", [False, True])
def test_kinds_of_pictures_are_known_in_any_case(tmp_path, kind, capital):
    ending = kind if capital else kind.lower()
    source = only(tmp_path, [(f"a.{ending}", png(kind=kind)), ("a.txt", b"x")])
    assert np.abs(source[0].picture.astype(int) - RED).max() < 3


def test_the_caption_is_the_jsons_where_there_is_no_text(tmp_path):
    made = [("a.json", b'{"caption": "from json"}'), ("a.png", png())]
    assert captions(only(tmp_path, made)) == ["from json"]


def test_a_blank_text_gives_way_to_the_json(tmp_path):
    made = [("a.json", b'{"caption": "from json"}'), ("a.png", png()), ("a.txt", b" \n")]
    assert captions(only(tmp_path, made)) == ["from json"]


def test_several_kinds_of_captions_stand_side_by_side(tmp_path):
    made = sample("a", "alt text", long="a long one", n=1) + sample("b", "only alt", n=2)
    source = only(tmp_path, made + sample("c", "", long="only long"), captions=("txt", "long"))
    assert [dict(source[i].captions) for i in range(3)] == [
        {"txt": "alt text", "long": "a long one"},
        {"txt": "only alt"},
        {"long": "only long"},
    ]


def test_captions_become_one_line(tmp_path):
    source = only(tmp_path, sample("a", "\ufeffred\n and\t猫  "))
    assert captions(source) == ["red and 猫"]


def test_truth_holds_the_numbers_of_the_json(tmp_path):
    made = sample("a", similarity=0.25, width=512, url="http://x", NSFW=None, punsafe="0.5")
    assert only(tmp_path, made)[0].truth == {"similarity": 0.25, "width": 512.0, "punsafe": 0.5}


def test_a_name_goes_on_to_the_first_dot_as_webdataset_has_it(tmp_path):
    made = [("d.1/a.png", png()), ("d.1/a.seg.png", b"?"), ("d.1/a.txt", b"x"), *sample("d.1/b")]
    assert captions(only(tmp_path, made)) == ["x", "a d.1/b"]


def test_other_members_are_left_alone(tmp_path):
    source = only(tmp_path, [("readme", b"?"), *CATS, ("stats.cls", b"9")])
    assert (len(source), source.summary) == (3, f"{tmp_path / 'a.tar'}: 3 of 3 samples")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [20, 90, 150, 220])
def test_long_and_japanese_names_pair_in_every_format(tmp_path, form, length):
    key = "/".join(["写真" * 3] * (length // 19 + 1))[: length // 3] + "x"
    path = write(tmp_path / "a.tar", sample(key, "one") + sample("b", "two"), form)
    assert captions(opened(path)) == ["one", "two"]


@pytest.mark.parametrize("seed", range(20))
def test_random_tars_give_the_samples_that_were_put_in(tmp_path, seed):
    """Any mixture of whole, halved and foreign members; against what was written."""
    rng, wanted = random.Random(seed), []
    for shard in range(3):
        made: Members = []
        for i in range(rng.randrange(12)):
            key, caption = f"{shard}-{i}", f"caption {rng.random()} " * rng.randrange(0, 40)
            fields = {"n": i} if rng.random() < 0.5 else {}
            own = [(name, data) for name, data in sample(key, caption, **fields)]
            own = own[1:] if rng.random() < 0.2 else own
            rng.shuffle(own)
            made += own + ([("junk/" * rng.randrange(50), b"")] if rng.random() < 0.3 else [])
            if caption.strip() and any(name.endswith(".png") for name, _ in own):
                wanted.append(" ".join(caption.split()))
        form = rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
        write(tmp_path / f"{shard}.tar", made, form)
    if not wanted:
        assert "no sample is left" in refusal(tmp_path)
        return
    source = opened(tmp_path)
    assert captions(source) == wanted
    assert all(
        (source[i].picture == source[i].picture[0, 0]).all() for i in range(0, len(source), 3)
    )


# -- shards


def test_shards_are_in_order_with_their_lengths(tmp_path):
    for number, count in enumerate([2, 0, 3]):
        made = [m for i in range(count) for m in sample(f"{number}{i}")]
        write(tmp_path / f"{number:05}.tar", made)
    source = opened(tmp_path / "{00000..00002}.tar")
    assert (source.shards, captions(source)) == (
        [2, 0, 3],
        ["a 00", "a 01", "a 20", "a 21", "a 22"],
    )


@pytest.mark.parametrize("path", ["", "*.tar", "{0..1}.tar", "{0,1}.tar", "0.tar, {t}/1.tar"])
def test_a_folder_a_pattern_braces_and_a_list_name_shards(tmp_path, path):
    for number in range(2):
        write(tmp_path / f"{number}.tar", sample(str(number)))
    assert captions(opened(f"{tmp_path}/{path.replace('{t}', str(tmp_path))}")) == ["a 0", "a 1"]


def test_places_beyond_the_end_are_refused(tmp_path):
    source = only(tmp_path, CATS)
    for place in (3, -1):
        with pytest.raises(IndexError):
            source[place]


@pytest.mark.parametrize("path", ["{3..1}.tar", "{0..99999999}.tar", "{0..9999}{0..9999}.tar"])
def test_braces_that_count_wrongly_are_named(path):
    assert "source.path" in refusal(path)


@pytest.mark.parametrize("path", ["", " , "])
def test_an_empty_path_is_refused(path):
    assert "source.path" in refusal(path)


def test_a_missing_shard_is_named(tmp_path):
    write(tmp_path / "0.tar", CATS)
    assert str(tmp_path / "1.tar") in refusal(tmp_path / "{0..1}.tar")


@pytest.mark.parametrize("path", ["", "*.tar"])
def test_a_folder_without_shards_is_named(tmp_path, path):
    assert str(tmp_path) in refusal(f"{tmp_path}/{path}")


@pytest.mark.parametrize(
    ("data", "what"), [(b"", "not a tar"), (b"<html>" * 999, "not a tar"), (b"\x1f\x8b", "unpack")]
)
def test_what_is_no_tar_is_named(tmp_path, data, what):
    write(tmp_path / "0.tar", CATS)
    (tmp_path / "1.tar").write_bytes(data)
    assert re.match(f"{re.escape(str(tmp_path / '1.tar'))}: .*{what}", refusal(tmp_path))


# -- what is left out, and told


def left_out(tmp_path: Path, spoiled: Members, **choices) -> str:
    """What is told where the spoiled sample is between two whole ones."""
    source = only(tmp_path, sample("cat") + spoiled + sample("tom"), **choices)
    assert captions(source) == ["a cat", "a tom"]
    return source.summary


@pytest.mark.parametrize(
    ("spoiled", "cause"),
    [
        ([("a.png", png())], tar_samples.NO_CAPTION),
        ([("a.png", png()), ("a.txt", b" \n")], tar_samples.NO_CAPTION),
        ([("a.txt", b"x")], tar_samples.NO_PICTURE),
        ([("a.png", b""), ("a.txt", b"x")], tar_index.TOO_LARGE),
        ([("a.png", png()), ("a.txt", "犬".encode("shift_jis"))], tar_index.BAD_TEXT),
        ([("a.png", png()), ("a.txt", b"x" * 70_000)], tar_index.BAD_TEXT),
        (
            [("a.png", png()), ("a.json", b'{"caption": "%s"}' % (b"x" * 70_000))],
            tar_samples.NO_CAPTION,
        ),
        ([("a.png", png()), ("a.json", b"{")], tar_index.BAD_JSON),
        ([("a.png", png()), ("a.json", b"[" * 99_999)], tar_index.BAD_JSON),
        ([("a.png", png()), ("a.json", b'{"n": ' + b"9" * 9_999 + b"}")], tar_index.BAD_JSON),
        ([("a.png", png()), ("a.json", b"[1]")], tar_index.BAD_JSON),
    ],
)
def test_a_sample_that_lacks_something_is_left_out_and_told(tmp_path, spoiled, cause):
    assert f"2 of 3 samples; left out: 1 {cause}" in left_out(tmp_path, spoiled)


def test_what_is_left_out_is_printed_in_one_line(tmp_path, capsys):
    source = only(tmp_path, [*CATS, ("a.txt", b"x")])
    assert capsys.readouterr().err == source.summary + "\n"


def test_nothing_is_printed_where_all_is_well(tmp_path, capsys):
    only(tmp_path, CATS)
    assert capsys.readouterr().err == ""


def test_a_huge_caption_is_not_read(tmp_path, monkeypatch):
    path, read = write(tmp_path / "a.tar", CATS), []
    with path.open("r+b") as file:  # a sparse caption of 100 MB behind the others
        file.seek(3 * 2 * 1024)
        for member, data in ((f"z.{ending}", png()) for ending in ("png", "txt")):
            info = tarfile.TarInfo(member)
            info.size = 100_000_000 if member.endswith("txt") else len(data)
            file.write(info.tobuf() + data.ljust(512, b"\0")[: 512 * (info.size < 512)])
        file.seek(100_000_256, os.SEEK_CUR)
        file.write(bytes(1024))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda f, n, at: read.append(n) or pread(f, n, at))
    assert f"1 {tar_index.BAD_TEXT}" in opened(path).summary
    assert max(read) <= 16_384


def test_a_broken_picture_is_reported_when_it_is_asked_for(tmp_path):
    source = only(tmp_path, [*CATS, ("bad.jpg", b"no picture"), ("bad.txt", b"x")])
    with pytest.raises(UnreadablePicture, match=re.escape(str(tmp_path / "a.tar"))):
        source[3]


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    data = zlib.compress(bytes(99))
    bomb += struct.pack(">I", len(data)) + b"IDAT" + data + bytes(4)
    source = only(tmp_path, [("a.png", bomb), ("a.txt", b"x")])
    with pytest.raises(UnreadablePicture):
        source[0]


def test_batches_skip_and_list_broken_pictures(tmp_path):
    source = only(tmp_path, [*CATS, ("bad.jpg", b"no picture"), ("bad.txt", b"x")])
    with closing(batches(source, BatchConfig(size=4), 0, 0)) as loader:
        found = list(islice(loader, 4))
    assert sum(len(batch.broken) for batch in found) >= 4
    assert all("a " in text for batch in found for text in batch.captions)


# -- tars that were cut or damaged


@pytest.mark.parametrize("cut", range(1, 6 * 1024 + 1, 307))
def test_of_a_cut_tar_the_whole_samples_are_used_and_the_loss_is_told(tmp_path, cut):
    """A sample takes 2,048 bytes: a header and a block of the picture, and so of the caption."""
    path, wanted = write(tmp_path / "a.tar", CATS), ["a cat", "a tom", "a kitten"]
    whole = [text for i, text in enumerate(wanted) if 2048 * i + 1536 + len(text) <= cut]
    os.truncate(path, cut)
    if not whole:
        assert str(path) in refusal(path)
        return
    source = opened(path)
    assert captions(source) == whole
    assert f"1 shards cut short or damaged (the first: {path})" in source.summary


def test_of_a_tar_with_a_damaged_header_the_samples_before_it_are_used(tmp_path):
    path = write(tmp_path / "a.tar", CATS)
    data = bytearray(path.read_bytes())
    data[4 * 1024 + 10] ^= 1
    path.write_bytes(data)
    source = opened(path)
    assert captions(source) == ["a cat", "a tom"]
    assert "damaged" in source.summary


@pytest.mark.parametrize("seed", range(60))
def test_no_noise_in_a_tar_does_more_than_lose_samples(tmp_path, seed):
    """Whatever bytes are changed: a source or a UserError, and each example whole or unreadable."""
    rng, path = random.Random(seed), write(tmp_path / "a.tar", CATS, tarfile.GNU_FORMAT)
    data = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 30)):
        at = rng.randrange(6 * 1024)
        data[at] = rng.randrange(256)
        block = at // 512 * 512  # with a checksum that fits, so that the fields are believed
        total = sum(data[block : block + 148]) + sum(data[block + 156 : block + 512]) + 256
        data[block + 148 : block + 156] = b"%06o\0 " % total
    path.write_bytes(data)
    try:
        source = opened(path)
    except UserError:
        return
    for i in range(len(source)):
        try:
            assert source[i].captions["caption"]
        except UnreadablePicture:
            continue


# -- what is not trusted


def special(tmp_path: Path, kind: bytes, name: str = "x.png", **fields) -> TarShards:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for member, data in CATS:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo(name)
        info.type = kind
        for field, value in fields.items():
            setattr(info, field, value)
        tar.addfile(info)
    return opened(path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_passed_over_and_told(tmp_path, kind):
    source = special(tmp_path, kind, linkname="/etc/passwd")
    assert (len(source), "1 links or devices" in source.summary) == (3, True)


def test_folders_are_passed_over(tmp_path):
    assert "passed over" not in special(tmp_path, tarfile.DIRTYPE, "d").summary


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b"])
def test_names_that_lead_out_are_passed_over_and_told(tmp_path, name):
    source = only(tmp_path, CATS + sample(name))
    assert "3 of 3 samples; passed over: 2 names" in source.summary


def test_nothing_but_the_index_is_written(tmp_path):
    source = only(tmp_path, CATS + sample("../evil"))
    captions(source)
    written = {path.name for path in tmp_path.rglob("*")}
    assert written == {"a.tar", "a.tar.index.safetensors"}


def test_an_extended_header_of_any_length_is_not_read_whole(tmp_path, monkeypatch):
    info = tarfile.TarInfo("bomb")
    info.type, info.size = tarfile.XHDTYPE, 50_000_000
    path = write(tmp_path / "a.tar", CATS)
    with path.open("r+b") as file:
        rest = file.read()
        file.seek(0)
        file.write(info.tobuf())
        file.seek(512 + 50_000_384)
        file.write(rest)
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda f, n, at: read.append(n) or pread(f, n, at))
    assert len(opened(path)) == 3
    assert max(read) <= 16_384


@pytest.mark.parametrize("record", [b"9999999 path=x\n", b"x", b"-5 path=x\n", b"0 a=b\n", b"20 "])
def test_extended_headers_that_are_not_well_formed_are_passed_over(tmp_path, record):
    info = tarfile.TarInfo("bad")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    path = write(tmp_path / "a.tar", CATS)
    path.write_bytes(info.tobuf() + record.ljust(512, b"\0") + path.read_bytes())
    assert len(opened(path)) == 3


def test_a_json_of_any_number_of_fields_makes_a_bounded_index(tmp_path):
    source = only(tmp_path, sample("a", **{f"f{i}": i for i in range(5_000)}))
    assert len(source[0].truth) == tar_index.MOST_FIELDS


# -- filters


@pytest.mark.parametrize("seed", range(10))
def test_filters_keep_what_python_would_keep(tmp_path, seed):
    rng, made, values = random.Random(seed), [], []
    for i in range(30):
        value = rng.choice([None, 0, 1, 0.3, rng.random(), -rng.random(), "text", True, 1e300])
        values.append(value)
        made += sample(str(i), n=i) if value is None else sample(str(i), n=i, score=value)
    comparison, number = rng.choice([">=", "<=", ">", "<", "==", "!="]), rng.choice([0, 0.3, 1])
    wanted = [
        f"a {i}"
        for i, value in enumerate(values)
        if not (value is None or isinstance(value, str))
        and eval(f"{float(value)!r} {comparison} {number}")
    ]
    source = only(tmp_path, made, filters=(f"score {comparison} {number}", "n>=0"))
    assert captions(source) == wanted
    assert (f"{30 - len(wanted)} score" in source.summary) == (len(wanted) < 30)


def test_filters_are_counted_one_after_another(tmp_path):
    made = [m for i in range(6) for m in sample(str(i), width=100 * i, similarity=i / 10)]
    source = only(tmp_path, made, filters=("width > 50", "similarity<0.4"))
    assert captions(source) == ["a 1", "a 2", "a 3"]
    assert "3 of 6 samples; left out: 1 width > 50, 2 similarity < 0.4" in source.summary


def test_other_filters_need_no_other_index(tmp_path, monkeypatch):
    made = [m for i in range(4) for m in sample(str(i), n=i)]
    only(tmp_path, made)
    monkeypatch.setattr(tar_index, "make_index", None)
    assert opened(tmp_path / "a.tar", filters=("n >= 2",)).shards == [2]


@pytest.mark.parametrize(
    "text",
    ["", "n", "n >= ", "n => 1", "__import__('os')", "n > 1 or True", "n > x", "1 < n", "n > nan"],
)
def test_what_is_no_filter_is_named(text, tmp_path):
    path = write(tmp_path / "a.tar", sample("a", n=1))
    assert "filters: " in refusal(path, filters=(text,))


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path):
    path = write(tmp_path / "a.tar", sample("a", similarity=1))
    assert "did you mean 'similarity'?" in refusal(path, filters=("similarty > 0",))


def test_filters_that_leave_nothing_are_told(tmp_path):
    path = write(tmp_path / "a.tar", sample("a", n=1))
    assert "0 of 1 samples; left out: 1 n > 1; no sample is left" in refusal(
        path, filters=("n > 1",)
    )


# -- the index


def test_the_index_lies_beside_the_shard_and_is_used_again(tmp_path, monkeypatch):
    only(tmp_path, CATS)
    assert (tmp_path / "a.tar.index.safetensors").is_file()
    monkeypatch.setattr(tar_index, "make_index", None)
    assert captions(opened(tmp_path / "a.tar")) == ["a cat", "a tom", "a kitten"]


def test_an_index_takes_the_bytes_a_sample_that_are_stated(tmp_path):
    made = [
        m for i in range(1_000) for m in sample(f"{i}", width=i, similarity=0.5, url="http://x")
    ]
    only(tmp_path, made)
    size = (tmp_path / "a.tar.index.safetensors").stat().st_size
    assert 0 <= size - 1_000 * (36 + 2 * 8 + 1) < 2_000


@pytest.mark.parametrize("keep_time", [False, True])
def test_an_index_of_another_tar_is_made_again(tmp_path, keep_time):
    path = write(tmp_path / "a.tar", CATS)
    opened(path)
    before = path.stat()
    write(path, sample("dog") * (30 if keep_time else 1))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert captions(opened(path))[0] == "a dog"


@pytest.mark.parametrize("seed", range(40))
def test_a_broken_index_is_made_again_or_harmless(tmp_path, seed):
    """Cut anywhere, or with bytes changed in its header."""
    rng, path = random.Random(seed), write(tmp_path / "a.tar", CATS)
    opened(path)
    index = tmp_path / "a.tar.index.safetensors"
    data = bytearray(index.read_bytes())
    if seed % 2:
        data = data[: rng.randrange(len(data))]
    else:
        length = 8 + int.from_bytes(data[:8], "little")
        for _ in range(5):
            data[rng.randrange(length)] = rng.randrange(256)
    index.write_bytes(data)
    source = opened(path)
    assert len(source) == 3
    assert captions(source) == ["a cat", "a tom", "a kitten"]


@pytest.mark.parametrize("column", ["picture.at", "picture.size", "text.at", "json.size"])
@pytest.mark.parametrize("value", [0, 7_000_000, 2**32 - 1])
def test_an_index_that_leads_out_of_the_tar_is_made_again(tmp_path, column, value):
    from safetensors.numpy import load, save

    path = write(tmp_path / "a.tar", CATS)
    opened(path)
    index = tmp_path / "a.tar.index.safetensors"
    data = index.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    arrays = load(data)
    if column == "picture.size" or value:
        arrays[column] = np.full_like(arrays[column], value)
    index.write_bytes(save(arrays, header["__metadata__"]))
    assert captions(opened(path)) == ["a cat", "a tom", "a kitten"]


def test_where_the_folder_cannot_be_written_the_index_goes_to_the_cache(tmp_path, monkeypatch):
    path, whole = write(tmp_path / "there/a.tar", CATS), tar_index.write_whole

    def refused(place: Path, data: bytes) -> None:
        if place.parent == path.parent:
            raise PermissionError(13, "Permission denied")
        whole(place, data)

    monkeypatch.setattr(tar_index, "write_whole", refused)
    opened(path, cache=tmp_path / "cache")
    assert [p.suffixes for p in (tmp_path / "cache").rglob("*.*")] == [[".index", ".safetensors"]]
    monkeypatch.setattr(tar_index, "make_index", None)
    assert len(opened(path, cache=tmp_path / "cache")) == 3


def test_where_nothing_can_be_written_the_cache_is_named(tmp_path, monkeypatch):
    def refused(place: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tar_index, "write_whole", refused)
    assert "--source.cache" in refusal(write(tmp_path / "a.tar", CATS))


def test_a_shard_that_changes_while_it_is_read_is_named(tmp_path):
    source = only(tmp_path, CATS)
    write(tmp_path / "a.tar", sample("dog") * 40)
    with pytest.raises(UserError, match=r"a\.tar: changed"):
        source[0]


@pytest.mark.parametrize("opened_before", [False, True])
def test_a_shard_that_is_cut_while_it_is_read_is_named_and_no_picture_counts_as_broken(
    tmp_path, opened_before
):
    source, path = only(tmp_path, CATS), tmp_path / "a.tar"
    if opened_before:
        assert source[0].captions
    os.truncate(path, 3 * 1024)
    with pytest.raises(UserError, match=r"a\.tar: (changed|cut short)"):
        source[2]
    assert re.search(r"a\.tar: cut short, 3,072 bytes of the [\d,]+ that it had", refusal(path))


def test_what_is_left_of_a_cut_shard_is_taken_once_its_index_is_deleted(tmp_path):
    path = write(tmp_path / "a.tar", CATS)
    opened(path)
    os.truncate(path, 3 * 1024)
    path.with_name("a.tar.index.safetensors").unlink()
    assert captions(opened(path)) == ["a cat"]


def test_a_disk_that_cannot_be_read_is_told_and_no_picture_counts_as_broken(tmp_path, monkeypatch):
    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    source = only(tmp_path, CATS)
    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(UserError, match=r"a\.tar: Input/output error"):
        source[0]


@pytest.mark.parametrize("pattern", ["", "/*.tar"])
def test_a_shard_that_is_gone_from_its_folder_is_named_until_its_index_is_gone_too(
    tmp_path, pattern
):
    for name in "ab":
        write(tmp_path / f"shards/{name}.tar", sample(name))
    path = f"{tmp_path}/shards{pattern}"
    opened(path, cache=tmp_path)
    (tmp_path / "shards/a.tar").unlink()
    assert refusal(path, cache=tmp_path).startswith(f"{tmp_path}/shards/a.tar: gone")
    (tmp_path / "shards/a.tar.index.safetensors").unlink()
    assert captions(opened(path, cache=tmp_path)) == ["a b"]


def test_a_shard_that_goes_away_is_named(tmp_path):
    source = only(tmp_path, CATS)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(UserError, match=r"a\.tar"):
        source[0]


# -- threads and processes


def test_threads_read_what_one_reads(tmp_path):
    for shard in range(4):
        write(tmp_path / f"{shard}.tar", [m for i in range(20) for m in sample(f"{shard}-{i}")])
    source = opened(tmp_path)
    wanted = captions(source)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda i: source[i].captions["caption"], [*range(80)] * 5)
        assert list(found) == wanted * 5


def test_more_shards_than_may_be_open_can_be_read(tmp_path):
    from flowbrush.data.tar_shards import OPEN_SHARDS

    for shard in range(OPEN_SHARDS + 40):
        write(tmp_path / f"{shard:04}.tar", sample(str(shard)))
    source = opened(tmp_path)
    handles = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert captions(source) * 2 == captions(source) + captions(source)
    if handles:
        assert len(list(Path("/proc/self/fd").iterdir())) - handles <= 2 * OPEN_SHARDS + 10


def test_a_source_that_was_pickled_reads_the_same(tmp_path):
    source = only(tmp_path, CATS)
    data = pickle.dumps(source)
    assert captions(pickle.loads(data)) == captions(source)
    assert len(data) < 3_000


def test_worker_processes_give_the_same_batches(tmp_path):
    source = only(tmp_path, CATS)

    def taken(workers: int) -> list[list[str]]:
        with closing(batches(source, BatchConfig(size=2, workers=workers), 0, 0)) as loader:
            return [batch.captions for batch in islice(loader, 4)]

    assert taken(1) == taken(0)
