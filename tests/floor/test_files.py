"""Places that cannot be written are said in one line, before any work is done."""

import errno
from pathlib import Path

import pytest

from malmoi.errors import OutputError
from malmoi.files import create_directory, refuse_existing, sole_writer


@pytest.mark.parametrize("name", ["file", "file/below", "file/below/deeper"])
def test_what_would_be_in_a_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / name
    with pytest.raises(OutputError, match=f"{place}: expected a place that can be written"), sole_writer(place):
        pass
    if place.exists():
        return
    with pytest.raises(OutputError, match="Not a directory; choose another"):
        refuse_existing(place, overwrite=False)
    with pytest.raises(OutputError, match="Not a directory"), create_directory(place):
        pass


def test_a_directory_has_one_writer_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "a" / "work"
    with (
        sole_writer(place),
        pytest.raises(OutputError, match="expected no other run writing it"),
        sole_writer(place),
    ):
        pass
    with sole_writer(place):
        pass


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOSPC])
def test_what_goes_wrong_in_the_work_is_not_blamed_on_the_place(number: int, tmp_path: Path) -> None:
    """A BlockingIOError is what another writer is known by."""
    with pytest.raises(OSError, match=rf"\[Errno {number}\]"), sole_writer(tmp_path):
        raise OSError(number, "of the work")


def test_nothing_is_in_the_way_of_a_new_directory(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "a" / "b", overwrite=False)
    assert not (tmp_path / "a").exists()


def test_what_is_below_a_new_directory_can_be_read_as_any_other(tmp_path: Path) -> None:
    with create_directory(tmp_path / "out") as partial:
        (partial / "below").mkdir()
        for file in (partial / "file", partial / "below" / "file"):
            file.touch(mode=0o600)
    usual = tmp_path / "usual"
    usual.mkdir()
    (usual / "file").touch()
    for name, like in {"below": usual, "file": usual / "file", "below/file": usual / "file"}.items():
        assert (tmp_path / "out" / name).stat().st_mode == like.stat().st_mode


@pytest.mark.parametrize("out", ["models", "models/demo", "models/link", "."])
def test_what_is_read_is_not_replaced(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "demo").mkdir(parents=True)
    (tmp_path / "models" / "link").symlink_to("demo")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"expected a directory apart from what is read"):
        refuse_existing(Path(out), overwrite=True, inputs=("texts/*.txt", Path("models/demo")))
    refuse_existing(Path("models/demo.fidelity"), overwrite=True, inputs=(Path("models/demo"),))


def test_the_current_directory_is_a_place_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="expected a new directory"):
        refuse_existing(Path(), overwrite=False)
