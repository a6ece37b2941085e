"""Data from elsewhere that mean harm. Each attack is skipped or refused and told by its cause, the
good examples beside it are read, nothing is written but an index, and memory stays bounded."""

import io
import json
import multiprocessing
import os
import pickle
import resource
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from flowbrush import checkpoint
from flowbrush.data import (
    ArrayRecordConfig,
    FolderConfig,
    ParquetConfig,
    SourceConfig,
    TarShardsConfig,
    listing,
    tar_index,
    tars,
)
from flowbrush.data.provenance import provenance
from flowbrush.data.remote import RemoteFiles
from flowbrush.data.source import UnreadablePicture
from flowbrush.errors import UserError
from flowbrush.interchange.files import read_weights

LONG = b"x" * 100_000_000  # a caption
TOO_WIDE = "100000 x 100000"  # in Pillow's words and in ours
FORK = multiprocessing.get_context("forkserver")


@cache
def png(side: int = 6) -> bytes:
    """Of a white square; one of 100,000 pixels a side is 10 MB, and decoded 10 GB."""
    if side < 1000:
        file = io.BytesIO()
        Image.new("L", (side, side), "white").save(file, "PNG")
        return file.getvalue()
    rows = side * (side + 1)  # bytes: each row begins with its filter
    packer = zlib.compressobj(9)
    part = packer.compress(bytes(rows // 100)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = part + part[2:] * 99 + packer.flush() + struct.pack(">I", (rows % 65521) << 16 | 1)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    sums = [struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    whole = [
        struct.pack(">I", len(body)) + kind + body + check
        for (kind, body), check in zip(chunks, sums, strict=True)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


class Code:
    """A pickle of it writes a file where it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


# -- what lies in the folders. `at` is the folder; beside it lies `outside`, which is not the user's


def folder(at: Path, picture: bytes = png(), caption: bytes = b"bad") -> FolderConfig:
    """One good example and a bad one."""
    for name, data, text in (("good", png(), b"good"), ("bad", picture, caption)):
        (at / f"{name}.png").write_bytes(data)
        (at / f"{name}.txt").write_bytes(text)
    return FolderConfig(path=at)


def linked(at: Path, name: str, to: str) -> FolderConfig:
    folder(at)
    (at / name).unlink(missing_ok=True)
    (at / name).symlink_to(at / to)
    return FolderConfig(path=at)


def pipe(at: Path) -> FolderConfig:
    folder(at)
    (at / "bad.png").unlink()
    os.mkfifo(at / "bad.png")
    return FolderConfig(path=at)


def endless(at: Path) -> FolderConfig:
    folder(at)
    os.truncate(at / "bad.png", 10**13)
    return FolderConfig(path=at)


def images_elsewhere(at: Path) -> FolderConfig:
    (at / "captions").mkdir()
    (at / "images").symlink_to(at.parent / "outside")
    return FolderConfig(path=at)


Member = tuple[str | tarfile.TarInfo, bytes]


def tar(at: Path, *bad: Member) -> TarShardsConfig:
    with tarfile.open(at / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for name, data in (("good.png", png()), ("good.txt", b"good"), *bad):
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return TarShardsConfig(path=str(at / "a.tar"), cache=at / "cache")


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member, b""


def claiming(size: str) -> Member:
    member = tarfile.TarInfo("bad.png")
    member.pax_headers = {"comment": "x", "size": size}
    return member, png()


def parquet(at: Path, picture: bytes = png(), caption: bytes = b"bad") -> ParquetConfig:
    table = pa.table({"image": [png(), picture], "text": ["good", caption.decode()]})
    pq.write_table(table, at / "a.parquet", row_group_size=1)
    return ParquetConfig(path=at)


def large_group(at: Path) -> ParquetConfig:
    """Of 2 GB, in a file of a few hundred KB."""
    pictures = pa.chunked_array([pa.array([LONG])] * 20)
    table = pa.table({"image": pictures, "text": ["bad"] * 20})
    pq.write_table(table, at / "a.parquet", compression="zstd", use_dictionary=False)
    assert (at / "a.parquet").stat().st_size < 1_000_000
    return ParquetConfig(path=at)


def shared_caption(at: Path) -> ParquetConfig:
    """10 MB that a thousand rows have in common: 10 GB."""
    places = pa.array([0, *[1] * 1_000], pa.int32())
    texts = pa.DictionaryArray.from_arrays(places, pa.array(["good", "x" * 10_000_000]))
    table = pa.table({"image": [png()] * 1_001, "text": texts, "license": texts})
    pq.write_table(table, at / "a.parquet", dictionary_pagesize_limit=2**30, store_schema=False)
    return ParquetConfig(path=at, filters=("text != 'bad'",))


def records(at: Path, **bad: Any) -> ArrayRecordConfig:
    import numpy as np

    writer = ArrayRecordWriter(str(at / "a.array_record"), "group_size:1")
    good = {"latent": np.zeros((4, 2, 2), np.float32), "caption": "good"}
    for record in (good, good | bad):
        writer.write(pickle.dumps(record))
    writer.close()
    return ArrayRecordConfig(path=at)


@dataclass(frozen=True)
class Attack:
    """make: writes it into a folder, and returns what would read it. told: its cause, in words.

    good: examples that are read all the same. memory: MB that it may take at most.
    """

    name: str
    make: Callable[[Path], SourceConfig]
    told: str
    good: int = 1
    memory: int = 300


ATTACKS = [
    # A folder of pictures.
    Attack("folder: a picture of 10 GB", lambda at: folder(at, png(100_000)), "decompression bomb"),
    Attack("folder: a file of 10 TB", endless, "over 100 MB"),
    Attack("folder: a caption of 100 MB", lambda at: folder(at, caption=LONG), "over 65,536", 0),
    Attack(
        "folder: a picture outside",
        lambda at: linked(at, "bad.png", "../outside/secret.png"),
        listing.LEADS_OUT,
    ),
    Attack(
        "folder: a caption outside",
        lambda at: linked(at, "bad.txt", "../outside/secret.txt"),
        listing.LEADS_OUT,
    ),
    Attack("folder: a device", lambda at: linked(at, "bad.png", "/dev/zero"), listing.LEADS_OUT),
    Attack("folder: a ring", lambda at: linked(at, "bad.png", "bad.png"), listing.NO_FILE),
    Attack("folder: a pipe", pipe, listing.NO_FILE),
    Attack(
        "folder: a folder outside",
        lambda at: linked(at, "more", "../outside"),
        listing.FOLDER_LINK,
        good=2,
    ),
    Attack("folder: itself in itself", lambda at: linked(at, "me", "."), listing.FOLDER_LINK, 2),
    Attack("folder: images/ outside", images_elsewhere, "a link out of", 0),
    # A tar shard.
    *(
        Attack(
            f"tar: {name}",
            lambda at, name=name: tar(at, (f"{name}.png", png()), (f"{name}.txt", b"bad")),
            tars.UNSAFE,
        )
        for name in ("../bad", "a/../../bad", "/bad")
    ),
    Attack("tar: a link", lambda at: tar(at, link("bad.txt", "../outside/secret.txt")), tars.LINKS),
    Attack(
        "tar: a hard link",
        lambda at: tar(at, link("bad.txt", "../outside/secret.txt", tarfile.LNKTYPE)),
        tars.LINKS,
    ),
    Attack("tar: a device", lambda at: tar(at, link("bad.png", "", tarfile.CHRTYPE)), tars.LINKS),
    Attack(
        "tar: a picture of 10 GB",
        lambda at: tar(at, ("bad.png", png(100_000)), ("bad.txt", b"bad")),
        "decompression bomb",
    ),
    Attack(
        "tar: a caption of 100 MB",
        lambda at: tar(at, ("bad.png", png()), ("bad.txt", LONG)),
        tar_index.BAD_TEXT,
    ),
    Attack(
        "tar: a .json of 100 MB",
        lambda at: tar(at, ("bad.png", png()), ("bad.json", b'{"caption": "' + LONG + b'"}')),
        tar_index.BAD_JSON,
    ),
    Attack(
        "tar: a .json nested 100,000 deep",
        lambda at: tar(at, ("bad.png", png()), ("bad.json", b'{"a":' * 100_000)),
        tar_index.BAD_JSON,
    ),
    Attack("tar: a member of an exabyte", lambda at: tar(at, claiming("9" * 18)), tars.CUT),
    Attack("tar: a size of 5,000 digits", lambda at: tar(at, claiming("9" * 5_000)), tars.CUT),
    # A parquet file.
    Attack("parquet: a picture of 10 GB", lambda at: parquet(at, png(100_000)), "decompression"),
    Attack(  # a group of rows may take source.cache, whatever is in it
        "parquet: a caption of 100 MB",
        lambda at: parquet(at, caption=LONG),
        "over 65,536",
        memory=512,
    ),
    Attack("parquet: a group of 2 GB", large_group, "source.cache: 512 MiB", 0),
    Attack("parquet: a caption 1,000 times", shared_caption, "over 65,536"),
    # ArrayRecord.
    Attack(
        "record: a pickle that runs code",
        lambda at: records(at, caption=Code(at.parent / "outside" / "owned")),
        "posix.system, which is refused",
    ),
    Attack("record: a caption of 100 MB", lambda at: records(at, caption=LONG), "over 65,536"),
]


# -- what comes of it


@dataclass(frozen=True)
class Outcome:
    told: list[str]  # refusals, why pictures are skipped, what is left out
    captions: list[str]
    memory: int  # MB at the worst, beyond what the program takes


def outcome(config: SourceConfig) -> Outcome:
    """Of reading everything there is; in a process of its own, for its memory."""
    told, captions, before = [], [], most_memory()
    try:
        source = config.build(2)
        told += list(provenance(config, source)["left_out"])
        for i in range(len(source)):
            try:
                captions += source[i].captions.values()
            except UnreadablePicture as error:
                told.append(error.reason)
    except UserError as error:
        told.append(str(error))
    return Outcome(told, captions, most_memory() - before)


def most_memory() -> int:
    """MB so far. Linux gives getrusage's also to a child, so that there its own status is read."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20


@pytest.fixture(scope="module")
def apart() -> Any:
    FORK.set_forkserver_preload(
        ["flowbrush.interchange.files", "flowbrush.data", "pyarrow.parquet"]
    )
    with FORK.Pool(1, maxtasksperchild=1) as pool:
        yield lambda config: pool.apply(outcome, [config])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_told_and_does_no_harm(attack: Attack, tmp_path: Path, apart) -> None:
    at, outside = tmp_path / "data", tmp_path / "outside"
    for place in (at, outside):
        place.mkdir()
    (outside / "secret.png").write_bytes(png())
    (outside / "secret.txt").write_text("secret")
    config = attack.make(at)
    before = files(tmp_path)
    found = apart(config)
    assert any(attack.told in told for told in found.told), found.told
    assert len(found.captions) == attack.good and "secret" not in found.captions
    assert all("\n" not in told and len(told) < 500 for told in found.told)
    assert files(tmp_path) - before <= {at / "a.tar.index.safetensors"}
    assert found.memory < attack.memory


def files(below: Path) -> set[Path]:
    return {Path(folder) / name for folder, _, names in os.walk(below) for name in names}


# -- weights and checkpoints


@pytest.mark.parametrize("ending", ["pt", "pth", "bin"])
def test_weights_that_run_code_are_refused(tmp_path: Path, ending: str) -> None:
    path, owned = tmp_path / f"weights.{ending}", tmp_path / "owned"
    torch.save({"weight": Code(owned)}, path)
    with pytest.raises(UserError, match=r"wants to run code \(posix.system\)"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Code(owned)))
    with pytest.raises(UserError, match=r"fetch it|refused"):
        read_weights(path)
    assert not owned.exists()


def test_an_index_of_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.parent.mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"")
    index.write_text(json.dumps({"weight_map": {"w": "../secret.safetensors"}}))
    with pytest.raises(UserError, match="outside"):
        read_weights(index)
    index.write_text("[" * 100_000)
    with pytest.raises(UserError, match="fetch it again"):
        read_weights(index)


def test_a_checkpoint_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    saved = checkpoint.save(tmp_path, 8, {"progress": {"pictures": 8}}, keep=1)
    torch.save({"state": Code(owned)}, saved / "optimizer.pt")
    listed = json.loads((saved / "manifest.json").read_text())
    listed["optimizer.pt"] = checkpoint.sha256(saved / "optimizer.pt")
    (saved / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises((UserError, pickle.UnpicklingError)):
        checkpoint.load(saved, "optimizer")
    assert not owned.exists()


# -- copies of remote files


@pytest.mark.parametrize(
    "url",
    [
        "http://x/../../../bad.tar",
        "http://x//etc/passwd",
        "http://x/%2e%2e%2f%2e%2e%2fbad.tar",
        "http://x/a\0b.tar",
        "http://x/" + "a" * 10_000,
        "file:///../../bad",
    ],
)
def test_no_address_leads_out_of_the_folder_of_copies(tmp_path: Path, url: str) -> None:
    copies = tmp_path / "copies"
    copy = RemoteFiles(copies, 1_000).copy(url)
    assert copy.parent == copies and len(copy.name) < 50 and copy.suffix == ".copy"
    index = tar_index.cached_index(url, tmp_path)
    assert index.resolve().is_relative_to(tmp_path / "indexes") and len(index.name) < 60
