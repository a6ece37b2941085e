"""Remote files, against servers on this machine: whole or not at all, within bounds, patiently."""

import http.server
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from test_tar_shards import captions, opened, refusal, sample, write

from flowbrush.data import remote, tar_index
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.remote import RemoteFiles
from flowbrush.errors import UserError

Handler = http.server.BaseHTTPRequestHandler
CONTENT = bytes(range(256)) * 4_000  # about 1 MB


class Served:
    """What a server sends for each path, and how often it was asked. A file may be a function that
    answers on its own."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Callable[[Handler], None]] = {}
        self.asked: Counter[str] = Counter()
        self.url = ""


@contextmanager
def serving() -> Iterator[Served]:
    served = Served()

    class Answer(Handler):
        def do_GET(self) -> None:
            served.asked[self.path] += 1
            found = served.files.get(self.path)
            if found is None:
                self.send_error(404)
            elif callable(found):
                found(self)
            else:
                send(self, found)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


def send(handler: Handler, data: bytes, announced: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data) if announced is None else announced))
    handler.end_headers()
    handler.wfile.write(data)


def failing(times: int, status: int, data: bytes = CONTENT) -> Callable[[Handler], None]:
    """An answer with that status, that often; then the data."""
    left = [status] * times

    def answer(handler: Handler) -> None:
        if left:
            handler.send_error(left.pop())
        else:
            send(handler, data)

    return answer


def sending(times: int, other: bytes, data: bytes = CONTENT) -> Callable[[Handler], None]:
    """Something else, that often; then the data."""
    left = [other] * times
    return lambda handler: send(handler, left.pop() if left else data)


def cutting(times: int, data: bytes = CONTENT) -> Callable[[Handler], None]:
    """The connection breaks off in the middle, that often."""
    left = list(range(times))

    def answer(handler: Handler) -> None:
        if left:
            left.pop()
            send(handler, data[: len(data) // 2], len(data))
            handler.close_connection = True
        else:
            send(handler, data)

    return answer


def files(tmp_path: Path, limit: int = 10**9, **choices) -> RemoteFiles:
    return RemoteFiles(tmp_path / "copies", limit, pause=0.01, **choices)


def content(kept: RemoteFiles, url: str) -> bytes:
    with open(kept.open(url), "rb") as file:
        return file.read()


def copies(kept: RemoteFiles) -> int:
    """The bytes of the copies; nothing else may lie there but locks, and what fetches failed of."""
    there = [path for path in kept.folder.iterdir() if path.suffix != ".failed"]
    sizes = [(path.name, path.stat().st_size) for path in there]
    assert all(name.endswith(".copy") or not size for name, size in sizes)
    assert not any(name.endswith((".aside", ".room")) for name, _ in sizes)
    return sum(size for _, size in sizes)


# -- one file


def test_a_file_is_fetched_once(tmp_path, served):
    served.files["/a.tar"], kept = CONTENT, files(tmp_path)
    assert [content(kept, served.url + "/a.tar") for _ in range(3)] == [CONTENT] * 3
    assert served.asked == {"/a.tar": 1}


def test_a_file_without_a_stated_length_is_fetched(tmp_path, served):
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    served.files["/a.tar"] = answer
    assert content(files(tmp_path), served.url + "/a.tar") == CONTENT


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_other_storages_of_fsspec_are_read(tmp_path, scheme):
    place = f"memory://{tmp_path}/a.tar" if scheme == "memory" else f"file://{tmp_path}/a.tar"
    with fsspec.open(place, "wb") as file:
        file.write(CONTENT)
    kept = files(tmp_path)
    assert content(kept, place) == CONTENT
    assert kept.found(place.replace("a.tar", "*.tar")) == [place]


def test_a_storage_that_is_not_known_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere://"):
        files(tmp_path).open("nowhere://a.tar")


def test_a_storage_whose_package_is_missing_names_it(tmp_path, monkeypatch):
    def missing(*args: object, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(UserError, match="pip install s3fs"):
        files(tmp_path).open("s3://me/a.tar")


# -- what goes wrong


@pytest.mark.parametrize("trouble", [failing(3, 503), failing(2, 429), cutting(3)])
def test_passing_trouble_is_waited_out(tmp_path, served, trouble):
    served.files["/a.tar"], kept = trouble, files(tmp_path)
    assert content(kept, served.url + "/a.tar") == CONTENT
    assert copies(kept) == len(CONTENT)


@pytest.mark.parametrize("trouble", [failing(99, 500), cutting(99)])
def test_lasting_trouble_is_told_in_one_line_after_the_last_try(tmp_path, served, trouble):
    served.files["/a.tar"], kept = trouble, files(tmp_path, tries=3)
    with pytest.raises(UserError, match=r"/a\.tar: out of reach after 3 tries") as told:
        kept.open(served.url + "/a.tar")
    assert "\n" not in str(told.value)
    assert (served.asked["/a.tar"], copies(kept)) == (3, 0)


def test_what_one_thread_gives_up_the_others_do_not_try_anew(tmp_path, served, monkeypatch):
    served.files["/a.tar"], kept = failing(99, 500), files(tmp_path, tries=4)

    def told(_: int) -> str:
        with pytest.raises(UserError) as error:
            kept.open(served.url + "/a.tar")
        return str(error.value)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(told, range(8)))) == 1
    assert served.asked["/a.tar"] == 4
    served.files["/a.tar"] = CONTENT
    monkeypatch.setattr(remote, "FRESH", 0.0)  # later
    assert content(kept, served.url + "/a.tar") == CONTENT
    assert not list(kept.folder.glob("*.failed"))


def test_what_another_process_gave_up_earlier_is_tried_anew(tmp_path, served, monkeypatch):
    served.files["/a.tar"], kept = failing(2, 500), files(tmp_path, tries=2)
    with pytest.raises(UserError):
        kept.open(served.url + "/a.tar")
    monkeypatch.setattr(remote, "STARTED", time.time() + 1)
    assert content(kept, served.url + "/a.tar") == CONTENT


def test_pauses_double(tmp_path, served, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    served.files["/a.tar"] = failing(99, 500)
    with pytest.raises(UserError):
        RemoteFiles(tmp_path, 10**9, tries=5, pause=1.0).open(served.url + "/a.tar")
    assert pauses == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("status", "what"), [(404, "not there"), (401, "refused"), (403, "refused")]
)
def test_what_no_patience_mends_is_tried_once(tmp_path, served, status, what):
    served.files["/a.tar"] = failing(99, status)
    with pytest.raises(UserError, match=f"a.tar: {what}"):
        files(tmp_path).open(served.url + "/a.tar")
    assert served.asked["/a.tar"] == 1


@pytest.mark.parametrize("trouble", [failing(3, 404), sending(3, b"<html>soon</html>")])
def test_of_a_file_that_was_there_before_its_absence_and_other_sizes_may_pass(
    tmp_path, served, trouble, capsys
):
    served.files["/a.tar"], kept = trouble, files(tmp_path)
    with open(kept.open(served.url + "/a.tar", len(CONTENT)), "rb") as file:
        assert file.read() == CONTENT
    assert served.asked["/a.tar"] == 4
    assert len(re.findall(r"/a\.tar: .*; next try in 0\.0[24] s\n", capsys.readouterr().err)) == 2


@pytest.mark.parametrize(
    ("trouble", "what"),
    [(failing(99, 404), "not there any more"), (sending(99, b"x"), "changed: 1")],
)
def test_a_file_that_is_not_again_what_it_was_is_told(tmp_path, served, trouble, what):
    served.files["/a.tar"], kept = trouble, files(tmp_path, tries=3)
    with pytest.raises(UserError, match=rf"/a\.tar: out of reach after 3 tries \({what}"):
        kept.open(served.url + "/a.tar", len(CONTENT))
    assert copies(kept) == 0


def test_a_copy_of_another_size_is_fetched_again(tmp_path, served):
    served.files["/a.tar"], kept = CONTENT, files(tmp_path)
    os.close(kept.open(served.url + "/a.tar"))
    kept.copy(served.url + "/a.tar").write_bytes(CONTENT[:1000])
    with open(kept.open(served.url + "/a.tar", len(CONTENT)), "rb") as file:
        assert file.read() == CONTENT


def test_a_server_that_is_not_there_is_told(tmp_path):
    with serving() as gone:
        url = gone.url
    with pytest.raises(UserError, match="out of reach after 2 tries"):
        files(tmp_path, tries=2).open(url + "/a.tar")


def test_a_server_that_falls_silent_is_given_up(tmp_path, served, monkeypatch):
    awake = threading.Event()

    def answer(handler: Handler) -> None:
        send(handler, CONTENT[:1000], len(CONTENT))
        awake.wait(10)

    served.files["/a.tar"] = answer
    monkeypatch.setattr(remote, "SILENCE", 0.2)
    with pytest.raises(UserError, match="out of reach after 2 tries"):
        files(tmp_path, tries=2).open(served.url + "/a.tar")
    awake.set()


def test_a_slow_server_is_waited_for(tmp_path, served, monkeypatch):
    def answer(handler: Handler) -> None:
        send(handler, b"", len(CONTENT))
        for start in range(0, len(CONTENT), len(CONTENT) // 8):
            time.sleep(0.1)
            handler.wfile.write(CONTENT[start : start + len(CONTENT) // 8])

    served.files["/a.tar"] = answer
    monkeypatch.setattr(remote, "SILENCE", 0.6)
    assert content(files(tmp_path), served.url + "/a.tar") == CONTENT


def test_a_full_disk_is_told_at_once(tmp_path, served, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    served.files["/a.tar"] = CONTENT
    monkeypatch.setattr(remote, "_fetch_once", full)
    with pytest.raises(UserError, match="No space left"):
        files(tmp_path).open(served.url + "/a.tar")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "copies").write_text("a file")
    with pytest.raises(UserError, match=r"--source\.cache"):
        files(tmp_path).open("memory://a.tar")


# -- bounds


def test_what_was_not_read_for_longest_is_given_up(tmp_path, served):
    kept, size = files(tmp_path, limit=3 * len(CONTENT)), len(CONTENT)
    for name in "abcd":
        served.files[f"/{name}"] = CONTENT
    for name in "abcacd":  # b is the one that is not read again
        content(kept, f"{served.url}/{name}")
        time.sleep(0.01)
        assert copies(kept) <= 3 * size
    held = [name for name in "abcd" if kept.copy(f"{served.url}/{name}").exists()]
    assert (held, copies(kept)) == (["a", "c", "d"], 3 * size)


@pytest.mark.parametrize("stated", [True, False])
def test_a_file_above_the_limit_is_refused(tmp_path, served, stated):
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    served.files["/a.tar"] = CONTENT if stated else answer
    kept = files(tmp_path, limit=len(CONTENT) - 1)
    with pytest.raises(UserError, match=r"--source\.cache-bytes"):
        kept.open(served.url + "/a.tar")
    assert (copies(kept), served.asked["/a.tar"]) == (0, 1)


def test_a_copy_that_is_given_up_while_it_is_open_is_read_to_its_end(tmp_path, served):
    kept = files(tmp_path, limit=len(CONTENT))
    served.files |= {"/a": CONTENT, "/b": CONTENT[::-1]}
    with open(kept.open(served.url + "/a"), "rb") as file:
        assert content(kept, served.url + "/b") == CONTENT[::-1]
        assert not kept.copy(served.url + "/a").exists()
        assert file.read() == CONTENT


def test_what_a_killed_process_left_is_cleared_away(tmp_path, served):
    served.files["/a"], kept = CONTENT, files(tmp_path)
    kept.folder.mkdir()
    for name in ("x.copy.1-1.aside", "x.copy.1-1.room"):
        (kept.folder / name).write_bytes(bytes(99))
        os.utime(kept.folder / name, (0, 0))
    content(kept, served.url + "/a")
    assert copies(kept) == len(CONTENT)


def crowd(kept: RemoteFiles, served, threads: int, times: int) -> bool:
    """Whether each of the threads, all at once and again and again, gets what it asked for."""
    data = {f"/{i}": bytes([i]) * 300_000 for i in range(6)}
    served.files |= data
    with ThreadPoolExecutor(threads) as pool:
        return all(
            pool.map(
                lambda i: content(kept, f"{served.url}/{i % 6}") == data[f"/{i % 6}"], range(times)
            )
        )


def test_many_threads_fetch_each_file_once_within_the_limit(tmp_path, served):
    assert crowd(files(tmp_path), served, threads=12, times=60)
    assert set(served.asked.values()) == {1}


def test_threads_that_crowd_a_small_folder_all_get_their_files(tmp_path, served):
    kept = files(tmp_path, limit=700_000)
    assert crowd(kept, served, threads=6, times=36)
    assert copies(kept) <= 700_000


ANOTHER = """
import importlib.util, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("remote", sys.argv[1])  # without torch
remote = sys.modules["remote"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(remote)
files = remote.RemoteFiles(Path(sys.argv[2]), 1_000_000, pause=0.01)
for url in sys.argv[3:]:
    file = files.open(url)
    assert os.pread(file, 400_000, 0) == bytes(300_000)
    os.close(file)
"""


def test_processes_share_a_folder(tmp_path, served):
    kept = files(tmp_path, limit=1_000_000)
    urls = [f"{served.url}/{i}" for i in range(5)]
    served.files |= {f"/{i}": bytes(300_000) for i in range(5)}
    command = [sys.executable, "-c", ANOTHER, remote.__file__, str(kept.folder)]
    others = [subprocess.Popen([*command, *urls[i:], *urls[:i]]) for i in range(2)]
    assert [other.wait() for other in others] == [0, 0]
    assert copies(kept) <= 1_000_000


# -- shards


def shards(tmp_path: Path, served: Served, count: int = 3) -> str:
    """Served shards, as a path of a config."""
    for number in range(count):
        made = [m for i in range(4) for m in sample(f"{number}-{i}")]
        path = write(tmp_path / f"made/{number:05}.tar", made)
        served.files[f"/{path.name}"] = path.read_bytes()
    return f"{served.url}/{{00000..{count - 1:05}}}.tar"


WANTED = [f"a {shard}-{i}" for shard in range(3) for i in range(4)]


def test_remote_shards_are_read_as_local_ones_are(tmp_path, served):
    source = opened(shards(tmp_path, served), cache=tmp_path / "cache")
    assert (captions(source), source.shards) == (WANTED, [4, 4, 4])


def test_remote_shards_that_are_known_are_not_asked_for_again(tmp_path, served):
    path = shards(tmp_path, served)
    captions(opened(path, cache=tmp_path / "cache"))
    served.asked.clear()
    assert captions(opened(path, cache=tmp_path / "cache")) == WANTED
    assert not served.asked


def test_an_index_beside_a_remote_shard_spares_fetching_it(tmp_path, served):
    path = shards(tmp_path, served)
    opened(tmp_path / "made")
    for index in (tmp_path / "made").glob("*.index.safetensors"):
        served.files[f"/{index.name}"] = index.read_bytes()
    source = opened(path, cache=tmp_path / "cache")
    assert not any(name.endswith(".tar") for name in served.asked)
    assert captions(source) == WANTED


def test_what_is_no_index_beside_a_remote_shard_is_passed_over(tmp_path, served):
    path = shards(tmp_path, served)
    served.files["/00001.tar" + tar_index.ENDING] = b"<html>not found</html>"
    assert captions(opened(path, cache=tmp_path / "cache")) == WANTED


def test_shards_are_read_where_only_one_copy_has_room(tmp_path, served):
    path = shards(tmp_path, served)
    size = len(served.files["/00000.tar"])  # type: ignore[arg-type]
    source = opened(path, cache=tmp_path / "cache", cache_bytes=size + 1)
    assert captions(source) == WANTED
    assert len(list((tmp_path / "cache/copies").glob("*.copy"))) == 1


def test_a_remote_shard_that_changed_is_named(tmp_path, served, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    source = opened(shards(tmp_path, served), cache=tmp_path / "cache")
    served.files["/00001.tar"] = write(tmp_path / "x.tar", sample("dog") * 40).read_bytes()
    for copy in (tmp_path / "cache/copies").glob("*.copy"):
        copy.unlink()
    with pytest.raises(UserError, match=r"00001\.tar: out of reach .*changed: .*--source\.cache"):
        captions(source)


def test_an_index_that_another_process_makes_at_the_same_time_is_as_good(tmp_path, served):
    path, indexes = shards(tmp_path, served), tmp_path / "cache/indexes"
    first = opened(path, cache=tmp_path / "cache")
    shutil.rmtree(indexes)
    shutil.rmtree(tmp_path / "cache/copies")
    opened(path, cache=tmp_path / "cache")
    assert captions(first) == WANTED


def test_a_missing_remote_shard_is_named(tmp_path, served):
    path = shards(tmp_path, served).replace("00002", "00003")
    assert f"{served.url}/00003.tar" in refusal(path, cache=tmp_path / "cache")


def test_a_remote_shard_that_is_no_tar_is_named_by_its_address_and_fetched_again(tmp_path, served):
    served.files["/a.tar"] = b"<html>" * 999
    message = refusal(f"{served.url}/a.tar", cache=tmp_path / "cache")
    assert re.match(re.escape(f"{served.url}/a.tar: not a tar"), message)
    served.files["/a.tar"] = write(tmp_path / "a.tar", sample("cat")).read_bytes()
    assert captions(opened(f"{served.url}/a.tar", cache=tmp_path / "cache")) == ["a cat"]


def test_a_remote_shard_that_is_gone_for_a_while_is_waited_for(tmp_path, served):
    source = opened(shards(tmp_path, served), cache=tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache/copies")
    whole = served.files["/00001.tar"]
    assert isinstance(whole, bytes)
    served.files["/00001.tar"] = failing(1, 404, whole)
    assert captions(source) == WANTED


def test_a_remote_folder_and_a_pattern_are_listed(tmp_path):
    for number in range(2):
        data = write(tmp_path / f"{number}.tar", sample(str(number))).read_bytes()
        fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/{number}.tar", data)
    for ending in ("/", "/*.tar"):
        path = f"memory://{tmp_path.name}{ending}"
        assert captions(opened(path, cache=tmp_path / "cache")) == ["a 0", "a 1"]


def test_remote_shards_go_through_worker_processes(tmp_path, served):
    source = opened(shards(tmp_path, served), cache=tmp_path / "cache")
    assert captions(pickle.loads(pickle.dumps(source))) == WANTED
    for copy in (tmp_path / "cache/copies").glob("*.copy"):
        copy.unlink()
    loader = batches(source, BatchConfig(size=4, workers=1), 0, 0)
    assert set(next(loader).captions) < set(WANTED)
    loader.close()
