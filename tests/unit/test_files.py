"""Files are there whole or not at all."""

import errno
import os

import pytest

from glintru_model.errors import DataError, StorageError
from glintru_model.files import atomic_directory, atomic_file, read_json, write_json


class HaltError(Exception):
    """Stands for anything that ends a writer half-way."""


def write_half(writer):
    with writer as temporary:
        (temporary / "half").touch() if temporary.is_dir() else temporary.write_text("half")
        raise HaltError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_writer_that_stops_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, {"version": 1})
    with pytest.raises(HaltError):
        write_half(atomic_file(path))
    assert read_json(path) == {"version": 1}
    assert names(tmp_path) == ["report.json"]


def test_a_folder_replaces_the_old_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "data"
    for version in ("one", "two"):
        with atomic_directory(path, "marker") as temporary:
            (temporary / version).touch()
            (temporary / "marker").touch()
    assert names(path) == ["marker", "two"]
    with pytest.raises(HaltError):
        write_half(atomic_directory(path, "marker"))
    assert names(path) == ["marker", "two"]
    assert names(tmp_path) == ["data"]


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "data"
    with pytest.raises(StorageError, match=r"data: cannot write: No space left"), atomic_directory(path, "marker"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []


def test_a_path_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/below.json: cannot write: "):
        write_json(tmp_path / "file" / "below.json", {})


def test_unreadable_json_names_the_file(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"broken\.json: not a JSON file"):
        read_json(path)
    with pytest.raises(DataError, match=r"absent\.json: cannot read"):
        read_json(tmp_path / "absent.json")


def test_nan_never_reaches_a_json_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_a_folder_of_somebody_elses_files_is_never_replaced(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"home: holds other files and no marker"):
        write_half(atomic_directory(path, "marker"))
    with pytest.raises(DataError, match=r"thesis\.txt: is a file"):
        write_half(atomic_directory(path / "thesis.txt", "marker"))
    assert (path / "thesis.txt").read_text() == "years of work"
    assert names(tmp_path) == ["home"]
