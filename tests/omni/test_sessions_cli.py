"""``omni sessions``: what a user sees, takes out and deletes."""

import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni.cli import app
from omni.errors import InputError, OmniError
from omni.sessions import default_directory, parse_keep
from runtime.archive import Archive, Begin
from runtime.items import Item, Part
from runtime.records import KeepItem, KeepMedia

ROOT = Path(__file__).parent.parent.parent
PNG = b"\x89PNG\r\n\x1a\n" + b"a passport"


def run(*arguments, **options):
    return CliRunner().invoke(app, ["sessions", *arguments], **options)


def refused(*arguments) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, OmniError), result.output
    return str(result.exception)


@pytest.fixture
def kept(tmp_path):
    """Two conversations: ``one`` with a picture and a tool, ``two`` with a greeting."""
    asked = [Part("input_image", media="m"), Part("input_text", "What is this?")]
    one = [
        Item("i0", "user", asked),
        Item(
            *("i1", "assistant"),
            kind="function_call",
            call_id="c",
            name="look",
            arguments='{"at": 1}',
        ),
        Item("i2", "user", kind="function_call_output", call_id="c", output="a passport"),
        Item("i3", "assistant", [Part("output_audio", "It is a")], "incomplete"),
    ]
    with contextlib.closing(Archive(tmp_path)) as archive:
        for name, items in (
            ("one", one),
            ("two", [Item("i0", "user", [Part("input_text", "Hello")])]),
        ):
            entries = [KeepItem(i, item.record()) for i, item in enumerate(items)]
            begin = Begin("conv", None, {"model": "omni"})
            archive.write([(name, entry) for entry in (begin, *entries)])
        archive.write([("one", KeepMedia("i0", "m", PNG))])
    return tmp_path


def test_a_list_says_what_each_conversation_began_with(kept):
    shown = run("list", "--data-dir", str(kept)).output
    assert "What is this?" in shown
    assert shown.index("one") != shown.index("two")
    listed = json.loads(run("list", "--json", "--data-dir", str(kept)).stdout)
    assert {(s["id"], s["title"], s["items"]) for s in listed} == {
        ("one", "What is this?", 4),
        ("two", "Hello", 1),
    }
    assert json.loads(run("list", "--json", "--data-dir", str(kept / "none")).stdout) == []


def test_a_conversation_is_shown_as_people_read_it(kept):
    shown = run("show", "one", "--data-dir", str(kept)).output
    assert "# What is this?" in shown
    assert "**You:** ![picture](media/" in shown
    assert '*calls* `look({"at": 1})`' in shown
    assert "*result* `a passport`" in shown
    assert "**Omni:** It is a *(cut short)*" in shown
    assert "no conversation three" in refused("show", "three", "--data-dir", str(kept))


def test_a_zip_holds_texts_and_media(kept, tmp_path):
    out = tmp_path / "one.zip"
    place = ("--data-dir", str(kept))
    assert run("export", "one", "--format", "zip", "--out", str(out), *place).exit_code == 0
    with zipfile.ZipFile(io.BytesIO(out.read_bytes())) as file:
        session = json.loads(file.read("session.json"))
        (medium,) = session["media"]
        assert file.read(f"media/{medium['file']}") == PNG
        assert f"media/{medium['file']}" in file.read("session.md").decode()
    assert json.loads(run("export", "one", *place).stdout) == session
    missing = str(tmp_path / "none" / "a.json")
    assert "--out" in refused("export", "one", "--out", missing, *place)


def test_deleting_needs_known_ids_and_all_of_them_a_yes(kept):
    place = ("--data-dir", str(kept))
    assert "nothing was deleted" in refused("delete", "one", "three", *place)
    assert "--all" in refused("delete", *place)
    assert "--all" in refused("delete", "one", "--all", *place)
    assert run("delete", "--all", *place, input="n\n").exit_code == 1
    assert len(json.loads(run("list", "--json", *place).stdout)) == 2
    assert "1 conversation deleted" in run("delete", "one", *place).output
    files = [path.read_bytes() for path in kept.rglob("*") if path.is_file()]
    assert not any(b"passport" in data or b"What is this" in data for data in files)
    assert any(b"Hello" in data for data in files)
    assert "1 conversation deleted" in run("delete", "--all", "--yes", *place).output
    assert run("list", "--json", *place).stdout.strip() == "[]"


def test_without_a_store_the_directory_is_named(tmp_path):
    missing = tmp_path / "none"
    assert str(missing) in refused("show", "one", "--data-dir", str(missing))
    assert not missing.exists()


def test_keep_takes_a_time_or_a_word(tmp_path, monkeypatch):
    assert parse_keep("30d", tmp_path).retention == timedelta(days=30)
    assert parse_keep("12h", tmp_path).retention == timedelta(hours=12)
    assert parse_keep("2w", tmp_path).retention == timedelta(weeks=2)
    assert parse_keep("forever", tmp_path).retention is None
    assert parse_keep("nothing", tmp_path) is None
    for wrong in ("", "0d", "-1d", "30 years", "9" * 30 + "d"):
        with pytest.raises(InputError, match="--keep"):
            parse_keep(wrong, tmp_path)
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "home"))
    assert default_directory() == parse_keep("30d", None).directory
    assert default_directory() == tmp_path / "home" / "sessions"


def test_listing_loads_no_torch(tmp_path):
    code = (
        "import sys; from omni.cli import app; "
        f"app(['sessions', 'list', '--data-dir', {str(tmp_path)!r}], standalone_mode=False); "
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=dict(os.environ),
    )
    assert ran.stdout.split()[-1] == "False"
