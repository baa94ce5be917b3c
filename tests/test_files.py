"""Files on a disk and in a bucket: whole, and where people said."""

import json

import numpy as np
import pytest
from bucket import stand_in
from etils import epath

from taming_jax.files import located, reached, unanswered, whole_file, write_json
from taming_jax.pictures import write_png


@pytest.fixture(params=["disk", "bucket"])
def directory(request, tmp_path):
    """A place of either kind."""
    with stand_in(tmp_path / "cloud") as bucket:
        yield epath.Path(tmp_path) if request.param == "disk" else bucket.path


def test_a_file_is_there_when_it_is_written(directory):
    path = directory / "file"
    with whole_file(path) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"


def write_a_part(path):
    with whole_file(path) as file:
        file.write(b"a part of wh")
        raise KeyboardInterrupt


def test_what_was_there_stays_if_writing_fails(directory):
    path = directory / "file"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        write_a_part(path)
    assert path.read_text() == "before"
    assert not [p for p in directory.iterdir() if p.suffix == ".part"]


def test_json_is_read_back(directory):
    write_json(directory / "a.json", {"key": [1, None]})
    assert json.loads((directory / "a.json").read_text()) == {"key": [1, None]}


def test_pictures_may_lie_in_directories_that_are_not_there(directory):
    write_png(directory / "images" / "a.png", np.zeros((2, 3, 1), np.uint8))
    assert (directory / "images" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_path_is_made_absolute_and_a_bucket_is_that(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    places = [str(located(path)) for path in ("run", "~/run", "gs://bucket/run")]
    assert places == [f"{tmp_path}/run", "/home/me/run", "gs://bucket/run"]


@pytest.mark.parametrize(
    ("error", "path", "expected"),
    [
        (ValueError("UNAVAILABLE: no answer"), "gs://bucket/run", True),
        (ConnectionResetError("by peer"), "gs://bucket/run", True),
        (OSError("Forbidden: gs://bucket/run"), "gs://bucket/run", True),
        (FileNotFoundError("gs://bucket/run"), "gs://bucket/run", False),
        (ValueError("DATA_LOSS: a chunk is short"), "gs://bucket/run", False),
        (OSError(5, "Input/output error"), "/run", False),
        (ValueError("UNAVAILABLE: a file may say so"), "/run", False),
    ],
)
def test_no_answer_is_told_from_a_bad_one(error, path, expected):
    assert unanswered(error, path) == expected


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no access\n  at line 3"), "no access"),
        (ValueError("PERMISSION_DENIED: no access [code='403']"), "P.*: no access"),
        (PermissionError(), "PermissionError"),
    ],
)
def test_a_bucket_that_cannot_be_reached_is_named_in_one_line(error, reason):
    message = f"^the data is 'gs://b/a', which cannot be reached: {reason}; the [^\n]*$"
    with pytest.raises(ValueError, match=message), reached("gs://b/a", "the data"):
        raise error


@pytest.mark.parametrize(
    ("path", "error"),
    [("gs://b/a", ValueError("no pictures")), ("/a", PermissionError("not yours"))],
)
def test_other_errors_are_left_as_they_are(path, error):
    with pytest.raises(type(error), match=f"^{error}$"), reached(path, "the data"):
        raise error
