"""What a file is by its name."""

import pytest

from flowbrush.data.file_kinds import is_leftover, unread


@pytest.mark.parametrize(
    ("name", "cause"), [("a.HEIC", "HEIC"), ("b/a.jxl", "JXL"), ("a.MP4", "videos")]
)
def test_what_is_not_read_has_a_cause(name, cause):
    assert unread(name).startswith(cause)


@pytest.mark.parametrize("name", ["a.jpg", "a.avif", "a.txt", "mp4"])
def test_other_files_have_none(name):
    assert not unread(name)


@pytest.mark.parametrize(
    "name",
    ["._a.jpg", ".DS_Store", "Thumbs.db", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found"],
)
def test_what_systems_leave_is_a_leftover(name):
    assert is_leftover(name) and not is_leftover("cat.jpg")
