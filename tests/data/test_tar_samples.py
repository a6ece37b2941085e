"""Which members of a tar become a sample, whatever their names and order: never a wrong pair."""

import io
import itertools
import random
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from flowbrush.data import TarShardsConfig, tar_index, tar_samples, tars
from flowbrush.data.tar_shards import TarShards
from flowbrush.errors import UserError

Members = list[tuple[str | bytes, bytes]]


def image(red: int, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(data, kind)
    return data.getvalue()


def write(path: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> Path:
    """Names of bytes are written as they are."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            if isinstance(name, bytes):
                name = name.decode("utf-8", "surrogateescape")
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def built(tmp_path: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> TarShards:
    path = write(tmp_path / "0.tar", members, form)
    return TarShardsConfig(path=str(path), cache=tmp_path / "cache").build(8)


def pairs(source: TarShards) -> dict[str, int]:
    """The red of the image that each caption goes with."""
    examples = [source[i] for i in range(len(source))]
    return {example.captions["caption"]: int(example.picture[0, 0, 0]) for example in examples}


def told(source: TarShards) -> dict[str, int]:
    return dict(source.origin().left_out)


# The files of samples 1, 2 and 3: the image of n is n red, its caption is n.
IMAGES: Members = [(f"{n}.png", image(n)) for n in (1, 2, 3)]
TEXTS: Members = [(f"{n}.txt", b"%d" % n) for n in (1, 2, 3)]
WHOLE = {"1": 1, "2": 2, "3": 3}


# -- what systems leave in a tar


def test_apple_double_members_part_no_sample(tmp_path: Path) -> None:
    """alinlab/CSI#31, OpenNeuroOrg/openneuro#2520."""
    members: Members = []
    for picture, text in zip(IMAGES, TEXTS, strict=True):
        for name, data in (picture, text):
            members += [(f"./._{name}", b"\0\5\x16\7" + bytes(60)), (f"./{name}", data)]
    source = built(tmp_path, members)
    assert pairs(source) == WHOLE
    assert told(source) == {tar_samples.LEFTOVER: 6}


@pytest.mark.parametrize(
    "name",
    [".DS_Store", ".1.jpg", "__MACOSX/1.png", "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "Thumbs.db",
     ".ipynb_checkpoints/1.png", "__meta__.json"],
)  # fmt: skip
def test_files_of_a_system_are_no_samples_and_are_counted(tmp_path: Path, name: str) -> None:
    source = built(tmp_path, [IMAGES[0], (name, image(9)), TEXTS[0]])
    assert (pairs(source), told(source)) == ({"1": 1}, {tar_samples.LEFTOVER: 1})


def test_the_apple_double_of_a_shard_is_no_shard(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", [*IMAGES[:1], *TEXTS[:1]])
    (tmp_path / "._0.tar").write_bytes(b"\0\5\x16\7" + bytes(60))
    for path in (f"{tmp_path}", f"{tmp_path}/*.tar"):
        assert len(TarShardsConfig(path=path, cache=tmp_path / "cache").build(8)) == 1


@pytest.mark.parametrize("name", ["1.tar.gz", "1.tgz", "1.tar.zst"])
def test_a_packed_shard_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    config = TarShardsConfig(path=str(tmp_path), cache=tmp_path / "cache")
    with pytest.raises(UserError, match=f"{name}: packed; unpack it"):
        config.build(8)
    write(tmp_path / "0.tar", [*IMAGES[:1], *TEXTS[:1]])
    assert "passed over: 1 packed shards" in config.build(8).summary
    write(tmp_path / "1.tar", [*IMAGES[1:2], *TEXTS[1:2]])  # the packed one was kept beside it
    assert told(config.build(8)) == {}


# -- names


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("long", [0, 120])
def test_names_that_are_not_utf_8_stay_different_names(
    tmp_path: Path, form: int, long: int
) -> None:
    """Decoded with a replacement, all of these were one name."""
    names = ["犬".encode("shift_jis"), "é".encode("latin-1"), b"\xff", b"\xfe", "猫".encode()]
    if long and form == tarfile.USTAR_FORMAT:
        names = [b"x" * 90 + b"/" + name for name in names]
    else:
        names = [b"x" * long + name for name in names]
    files: Members = [(name + b".png", image(n)) for n, name in enumerate(names)]
    texts: Members = [(name + b".txt", b"%d" % n) for n, name in enumerate(names)]
    for members in (
        files + texts,
        files + texts[::-1],
        [m for p in zip(files, texts, strict=True) for m in p],
    ):
        source = built(tmp_path, members, form)
        assert pairs(source) == {str(n): n for n in range(len(names))}


def test_names_with_dots_are_samples_of_their_own(tmp_path: Path) -> None:
    """`v1.1.png` and `v1.2.png` have one name for WebDataset; none goes with another's text."""
    members: Members = []
    for n in (1, 2, 3):
        members += [(f"v1.{n}.png", image(n)), (f"v1.{n}.txt", b"%d" % n)]
    for order in (members, members[::2] + members[1::2]):
        source = built(tmp_path, order)
        assert (pairs(source), told(source)) == (WHOLE, {})


def test_names_with_dots_go_by_all_of_their_dots(tmp_path: Path) -> None:
    members: Members = [
        ("a..png", image(1)),
        ("a..txt", b"1"),
        ("a.png", image(2)),
        ("a.txt", b"2"),
    ]
    assert pairs(built(tmp_path, members)) == {"1": 1, "2": 2}


def test_a_further_image_of_a_sample_is_no_sample_and_is_counted(tmp_path: Path) -> None:
    members = [IMAGES[0], ("1.mask.png", image(8)), ("1.gif", image(9, "GIF")), TEXTS[0]]
    source = built(tmp_path, members)
    assert (pairs(source), told(source)) == ({"1": 1}, {tar_samples.SECOND: 2})


def test_a_common_kind_of_image_is_taken_before_a_rare_one(tmp_path: Path) -> None:
    mask = io.BytesIO()
    Image.new("L", (8, 8), 9).save(mask, "PPM")
    assert pairs(built(tmp_path, [("1.pgm", mask.getvalue()), IMAGES[0], TEXTS[0]])) == {"1": 1}


def test_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    assert pairs(built(tmp_path, [("e\u0301.png", image(1)), ("\xe9.txt", b"1")])) == {"1": 1}


# -- order


def test_images_and_then_captions_are_samples_too(tmp_path: Path) -> None:
    """webdataset/webdataset#407."""
    for texts in (TEXTS, TEXTS[::-1]):
        source = built(tmp_path, IMAGES + texts)
        assert (pairs(source), told(source)) == (WHOLE, {})


def test_images_and_captions_in_folders_of_their_own_are_samples_too(tmp_path: Path) -> None:
    members: Members = [(f"set/images/a/{name}", data) for name, data in IMAGES]
    members += [(f"set/captions/a/{name}", data) for name, data in TEXTS]
    for order in (members, members[::-1]):
        source = built(tmp_path, order)
        assert (pairs(source), told(source)) == (WHOLE, {})


def test_samples_in_other_folders_are_refused_with_the_cause(tmp_path: Path) -> None:
    members: Members = [(f"x/{name}", data) for name, data in IMAGES]
    members += [(f"y/{name}", data) for name, data in TEXTS]
    with pytest.raises(UserError, match=r"0 of 3 samples; left out: 3 with image and caption in "
                       r"different folders; .* tar --sort=name"):  # fmt: skip
        built(tmp_path, members)


def test_a_text_between_the_halves_of_a_sample_parts_it_no_longer(tmp_path: Path) -> None:
    assert pairs(built(tmp_path, [IMAGES[0], ("readme.md", b"x"), TEXTS[0]])) == {"1": 1}


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_members_makes_a_wrong_pair(tmp_path: Path, seed: int) -> None:
    """Names with dots, folders and repetitions, in any order: a pair is right or there is none."""
    rng, stems = random.Random(seed), ["a", "a.1", "a.b", "b", "x/a", "y/a", "images/a", ".a"]
    members: Members = []
    for n, stem in enumerate(rng.choices(stems, k=8)):
        n = stems.index(stem)  # an image and its text tell what they are called
        members += [
            (f"{stem}.png", image(n)),
            (f"{stem.replace('images', 'captions')}.txt", b"%d" % n),
        ]
    rng.shuffle(members)
    try:
        source = built(tmp_path, members[: rng.randrange(1, 17)])
    except UserError as error:
        assert "no sample is left" in str(error)
        return
    assert all(int(text) == red for text, red in pairs(source).items())


def test_what_waits_for_its_other_half_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_samples, "MAX_WAITING", 2)
    source = built(tmp_path, IMAGES + TEXTS)
    assert (pairs(source), told(source)) == (
        {"1": 1, "2": 2},
        {tar_samples.NO_CAPTION: 1, tar_samples.NO_PICTURE: 1},
    )


# -- what is there twice


def test_a_sample_that_is_there_twice_is_counted(tmp_path: Path) -> None:
    """webdataset/webdataset#157, #286: two images of one name, one after the other or apart."""
    source = built(tmp_path, [IMAGES[0], TEXTS[0], IMAGES[0], TEXTS[0], IMAGES[1], TEXTS[1]])
    assert (pairs(source), told(source)) == ({"1": 1, "2": 2}, {tar_samples.TWICE: 1})
    assert "2 of 3 samples; left out: 1 twice in the tar" in source.summary


def test_of_an_image_that_is_there_twice_apart_from_its_caption_none_is_taken(
    tmp_path: Path,
) -> None:
    members = [IMAGES[0], IMAGES[1], ("1.png", image(9)), IMAGES[2], *TEXTS]
    source = built(tmp_path, members)
    assert (pairs(source), told(source)) == ({"2": 2, "3": 3}, {tar_samples.TWICE: 2})


def test_a_caption_apart_from_its_whole_sample_is_told(tmp_path: Path) -> None:
    source = built(tmp_path, [IMAGES[0], TEXTS[0], IMAGES[1], TEXTS[1], ("1.txt", b"other")])
    assert (pairs(source), told(source)) == ({"1": 1, "2": 2}, {tar_samples.LATE: 1})


# -- kinds


@pytest.mark.parametrize("kind", ["AVIF", "TIFF", "BMP", "GIF"])
def test_images_of_rarer_kinds_are_read(tmp_path: Path, kind: str) -> None:
    source = built(tmp_path, [(f"1.{kind.lower()}", image(200, kind)), TEXTS[0]])
    assert abs(pairs(source)["1"] - 200) < 9


@pytest.mark.parametrize("ending", ["heic", "JXL"])
def test_images_that_are_not_decoded_are_counted_by_their_kind(tmp_path: Path, ending: str) -> None:
    source = built(tmp_path, [(f"0.{ending}", b"x"), ("0.txt", b"0"), IMAGES[0], TEXTS[0]])
    ((cause, count),) = told(source).items()
    assert (len(source), count, ending.lower() in cause.lower()) == (1, 1, True)


# -- the format


def test_sparse_files_are_told_and_what_follows_them_is_read(tmp_path: Path) -> None:
    """GNU's old format goes on behind its header; PAX's says so in an extended header."""
    path = write(tmp_path / "0.tar", [*IMAGES[:1], *TEXTS[:1]])
    old = tarfile.TarInfo("9.png")
    old.type, old.size = tarfile.GNUTYPE_SPARSE, 700
    header = bytearray(old.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 256)
    more = bytes(504) + b"\0" * 8
    sparse = bytes(header) + b"\1" * 504 + b"\1" * 8 + more + b"x" * 1024
    pax = tarfile.TarInfo("8.png")
    pax.size, pax.pax_headers = 3, {"GNU.sparse.major": "1"}
    with_pax = pax.tobuf(tarfile.PAX_FORMAT) + b"abc".ljust(512, b"\0")
    path.write_bytes(sparse + with_pax + path.read_bytes())
    source = TarShardsConfig(path=str(path), cache=tmp_path / "cache").build(8)
    assert (pairs(source), told(source)) == ({"1": 1}, {tars.SPARSE: 2})


def test_a_tar_behind_the_end_of_another_is_told(tmp_path: Path) -> None:
    """cat a.tar b.tar: a tar ends at its first block of zeros."""
    path = write(tmp_path / "0.tar", [*IMAGES[:1], *TEXTS[:1]])
    path.write_bytes(path.read_bytes() + write(tmp_path / "x", [*IMAGES[1:], *TEXTS]).read_bytes())
    source = TarShardsConfig(path=str(path), cache=tmp_path / "cache").build(8)
    assert (pairs(source), told(source)) == ({"1": 1}, {tars.BEHIND: 1})


def test_an_index_of_the_rules_before_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_index, "VERSION", 2)
    built(tmp_path, IMAGES + TEXTS)
    made = itertools.count()
    make = tar_index.make_index
    monkeypatch.setattr(tar_index, "make_index", lambda *of: [make(*of), next(made)][0])
    config = TarShardsConfig(path=str(tmp_path / "0.tar"), cache=tmp_path / "cache")
    assert (pairs(config.build(8)), next(made)) == (WHOLE, 0)
    monkeypatch.setattr(tar_index, "VERSION", 3)
    assert (pairs(config.build(8)), next(made)) == (WHOLE, 2)
