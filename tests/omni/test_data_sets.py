import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from omni.data import sets
from omni.data.sets import DataSet, Package
from omni.errors import InputError, OmniError
from omni.weights.progress import SilentProgress


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/words.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    return out.getvalue()


DATA = archive()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """One set whose package comes from a registry that is not asked; gives the calls."""
    monkeypatch.setenv("OMNI_HOME", str(tmp_path))
    package = Package("npm", "@some/words", "1.0.0", len(DATA), hashlib.sha256(DATA).hexdigest())
    chosen = DataSet("words", "words", "CC0-1.0", "Nobody.", (package,))
    monkeypatch.setattr(sets, "SETS", {"words": chosen})
    calls: list[list[str]] = []

    def run(command: list[str], folder: Path, package: Package) -> None:
        calls.append(command)
        (folder / "some-words-1.0.0.tgz").write_bytes(DATA)

    monkeypatch.setattr(sets, "_run", run)
    return calls


def test_a_set_is_fetched_once_and_unpacked(registry: list[list[str]]) -> None:
    path = sets.pull("words", SilentProgress())
    assert (path / "words" / "package" / "words.txt").read_text() == "hello"
    assert sets.pull("words", SilentProgress()) == path
    assert registry == [["npm", "pack", "--silent", "@some/words@1.0.0"]]


def test_another_file_than_the_known_one_leaves_nothing(
    registry: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.DATA", DATA + b"x")
    with pytest.raises(OmniError, match=r"expected \d+ bytes with"):
        sets.pull("words", SilentProgress())
    folder = sets.set_of("words").path
    assert not folder.exists()
    assert [p.name for p in folder.parent.iterdir() if p.is_dir()] == []


def test_an_unknown_set_is_answered_with_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"no set is called 'nouns'; choose from: .*wordnet"):
        sets.pull("nouns")


def test_a_set_that_is_not_here_names_the_command(registry: list[list[str]]) -> None:
    with pytest.raises(InputError, match="omni data pull words"):
        sets.require(["words"])


def test_a_missing_client_of_a_registry_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNI_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(OmniError, match="fetched by apt-get, which is not here"):
        sets.pull("wordnet", SilentProgress())


def test_every_set_says_its_licence_and_whom_to_thank() -> None:
    for chosen in sets.SETS.values():
        assert chosen.licence
        assert chosen.attribution
        assert all(len(p.sha256) == 64 and p.size for p in chosen.packages)
        assert chosen.ships or chosen.name in {"openmoji", "foolbox", "gcompris"}
