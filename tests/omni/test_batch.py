"""What a batch works on and what it writes: inputs, the journal, subtitles, tables."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from omni.batch import Options, Record, Unusable, read_records
from omni.batch.journal import Journal, read_results
from omni.batch.outputs import beside, rows, write_captions, write_csv
from omni.batch.schema import SCHEMA
from omni.errors import InputError, OmniError

SETTINGS = Options().settings


def result(identity="a", digest="d", error=None, **fields):
    return {
        "id": identity,
        "media": [],
        "answers": [],
        "error": error and {"code": "c", "message": error, "param": None},
        "timings": {},
        "usage": {"input_tokens": 0, "output_tokens": 0},
        "settings": SETTINGS,
        "version": "0",
        "digest": digest,
        **fields,
    }


HEARD = {
    "text": "Hello there. <b>Hi</b>!",
    "language": "en",
    "confidence": 0.9,
    "segments": [
        {"start": 0.1, "end": 1.0, "text": "Hello there.", "confidence": 0.9, "speaker": "1"},
        {"start": 1.5, "end": 2.0, "text": "<b>Hi</b>!", "confidence": 0.9, "speaker": "2"},
    ],
}
SPOKEN = result(media=[{"kind": "audio", "path": "x.wav", "seconds": 2.5, "transcript": HEARD}])


# --- inputs --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/one.wav", "a/deep/two.mp4", "a/.hidden.wav", "a/.git/x.wav", "a/notes.docx"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/one.wav").write_bytes(b"y")
    return tmp_path


def ids(*inputs, **options):
    return [record.id for record in read_records(inputs, **options)]


def test_folders_give_their_media_by_paths_that_do_not_clash(folder):
    assert ids("a", "b") == ["a/deep/two.mp4", "a/one.wav", "b/one.wav"]


def test_a_file_that_is_given_twice_counts_once(folder):
    assert ids("a", "a/one.wav", "./a/../a/one.wav") == ["a/deep/two.mp4", "a/one.wav"]


def test_patterns_are_expanded_here_for_shells_that_do_not(folder):
    assert ids("*/*.wav") == ["a/one.wav", "b/one.wav"]
    [missing] = read_records(["*.ogg"])
    assert "matches no file" in str(missing.error)


def test_a_missing_file_costs_its_own_line_only(folder):
    missing, found = read_records(["gone.wav", "b/one.wav"])
    assert isinstance(missing, Unusable)
    assert missing.id == "gone.wav"
    assert found.id == "b/one.wav"


def manifest(folder, *lines):
    path = folder / "m.jsonl"
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return list(read_records([str(path)], ["What?"]))


def test_a_manifest_has_several_media_and_questions_per_record(folder):
    [both, plain] = manifest(
        folder,
        {"id": 7, "audio": ["a/one.wav", "b/one.wav"], "text": "Read this.", "ask": ["A?", "B?"]},
        {"video": "a/deep/two.mp4", "language": "de"},
    )
    assert both.id == "7"
    assert [(m.kind, m.path and m.path.name, m.text) for m in both.media] == [
        ("audio", "one.wav", None),
        ("audio", "one.wav", None),
        ("text", None, "Read this."),
    ]
    assert both.asks == ("A?", "B?")
    assert plain.id == "m.jsonl:2"
    assert plain.asks == ("What?",)
    assert plain.language == "de"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "no JSON"),
        ("[1]", "no JSON object"),
        ({"audio": "a.wav", "asks": "?"}, "unknown field 'asks'"),
        ({"id": "x"}, "names no medium"),
        ({"audio": 3}, "'audio' is 3"),
        ({"audio": "a.wav", "ask": [""]}, "'ask' is ['']"),
        ({"audio": "a.wav", "id": ""}, "'id' is ''"),
        ({"audio": "a.wav", "language": 1}, "'language' is 1"),
    ],
)
def test_a_broken_line_of_a_manifest_costs_itself_only(folder, line, words):
    first, broken, last = manifest(folder, {"text": "a"}, line, {"text": "b"})
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert isinstance(broken, Unusable)
    assert broken.id == "m.jsonl:2"
    assert words in str(broken.error)


def test_an_id_that_comes_twice_is_refused_the_second_time(folder):
    first, again = manifest(folder, {"id": "x", "text": "a"}, {"id": "x", "text": "b"})
    assert isinstance(first, Record)
    assert "came before" in str(again.error)
    assert again.id != "x"


def test_standard_input_is_a_manifest_or_one_file(tmp_path):
    lines = io.BytesIO(b' {"text": "a"}\n{"text": "b"}')
    assert ids("-", stdin=lines) == ["stdin:1", "stdin:2"]
    [record] = read_records(["-"], spool=tmp_path, stdin=io.BytesIO(b"RIFF....WAVE"))
    assert record.id == "stdin"
    assert record.media[0].path.read_bytes() == b"RIFF....WAVE"


def test_a_digest_follows_files_questions_and_settings(folder):
    [record] = read_records(["b/one.wav"], ["What?"])
    before = record.digest(SETTINGS)
    assert before == record.digest(SETTINGS)
    assert before != record.digest(Options(words=True).settings)
    assert before == record.digest(Options(threads=7, together=2).settings)
    [other] = read_records(["b/one.wav"], ["Who?"])
    assert before != other.digest(SETTINGS)
    (folder / "b/one.wav").write_bytes(b"longer")
    assert before != record.digest(SETTINGS)


# --- the journal ---------------------------------------------------------------------------------


def states(path, *wanted):
    with Journal(path) as journal:
        return [journal.state(identity, digest) for identity, digest in wanted]


def test_what_is_done_is_known_to_the_next_run_and_what_failed_too(tmp_path):
    path = tmp_path / "out.jsonl"
    with Journal(path) as journal:
        journal.write(result("a", "1"))
        journal.write(result("b", "2", error="bad"))
    wanted = [("a", "1"), ("a", "other"), ("b", "2"), ("c", "3")]
    assert states(path, *wanted) == ["done", "changed", "failed", "new"]
    assert path.stat().st_mode & 0o111 == 0


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_line_that_a_kill_left_unfinished_is_dropped(tmp_path, cut):
    path = tmp_path / "out.jsonl"
    with Journal(path) as journal:
        journal.write(result("a", "1"))
        whole = path.read_bytes()
        journal.write(result("b", "2"))
    path.write_bytes(path.read_bytes()[:-cut])
    assert states(path, ("a", "1"), ("b", "2")) == ["done", "new"]
    assert path.read_bytes() == whole


def test_the_last_line_of_a_record_counts_and_the_others_go_at_the_end(tmp_path):
    path = tmp_path / "out.jsonl"
    with Journal(path) as journal:
        for line in (result("a", error="bad"), result("b"), result("a"), result("b", "new")):
            journal.write(line)
        assert [(r["id"], r["digest"]) for r in read_results(path)] == [("a", "d"), ("b", "new")]
        assert len(path.read_text().splitlines()) == 4
        journal.compact()
        assert [r["error"] for r in read_results(path)] == [None, None]
        assert len(path.read_text().splitlines()) == 2
        journal.write(result("c"))
    assert [r["id"] for r in read_results(path)] == ["a", "b", "c"]


def test_two_runs_cannot_write_one_file(tmp_path):
    path = tmp_path / "out.jsonl"
    with (
        Journal(path) as journal,
        pytest.raises(InputError, match="another run"),
        Journal(path),
    ):
        pass
    with Journal(path):
        journal.path  # noqa: B018


@pytest.mark.parametrize("content", ['{"id": "x", "text": "hello"}\n', "hello\n", "hello", "[1]\n"])
def test_a_file_of_something_else_is_not_touched(tmp_path, content):
    path = tmp_path / "precious.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match="no result"), Journal(path):
        pass
    assert path.read_text() == content


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    with Journal(path) as journal:
        journal.write(result("a", "1"))
        whole = path.read_bytes()
        real = os.write

        def full(file, data):
            real(file, bytes(data)[:10])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OmniError, match=r"No space left.*is whole"):
            journal.write(result("b", "2"))
        monkeypatch.undo()
        assert path.read_bytes() == whole
        journal.write(result("b", "2"))
    assert states(path, ("a", "1"), ("b", "2")) == ["done", "done"]


# --- outputs -------------------------------------------------------------------------------------


def test_transcripts_become_subtitles_and_text_with_their_speakers(tmp_path):
    kinds = {kind: tmp_path / kind for kind in ("srt", "vtt", "txt")}
    two = {**SPOKEN, "id": "calls/one.wav", "media": SPOKEN["media"] * 2}
    written = write_captions(two, kinds)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        *("srt/calls/one.wav.srt", "vtt/calls/one.wav.vtt", "txt/calls/one.wav.txt"),
        *("srt/calls/one.wav.2.srt", "vtt/calls/one.wav.2.vtt", "txt/calls/one.wav.2.txt"),
    ]
    assert written[0].read_text() == (
        "1\n00:00:00,100 --> 00:00:01,000\n[1] Hello there.\n\n"
        "2\n00:00:01,500 --> 00:00:02,000\n[2] <b>Hi</b>!\n"
    )
    assert "&lt;b&gt;Hi" in written[1].read_text()
    assert written[2].read_text() == "[1] Hello there.\n[2] <b>Hi</b>!\n"


@pytest.mark.parametrize("identity", ["../../etc/x", "/etc/x", "a/../../x", "..", "", 'c:\\x"?'])
def test_no_id_leads_out_of_the_directory(tmp_path, identity):
    path = beside(tmp_path, identity, ".srt")
    assert path.resolve().is_relative_to(tmp_path.resolve())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("fine")


def test_a_table_has_a_row_for_every_question(tmp_path):
    asked = {**SPOKEN, "answers": [{"ask": "A?", "answer": "1"}, {"ask": "B?", "answer": "2\n3"}]}
    failed = result("broken", error="damaged")
    write_csv(tmp_path / "t.csv", [asked, failed])
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["id"], row["ask"], row["answer"], row["status"]) for row in table] == [
        ("a", "A?", "1", "ok"),
        ("a", "B?", "2\n3", "ok"),
        ("broken", "", "", "error"),
    ]
    assert table[0]["transcript"] == HEARD["text"]
    assert table[2]["error"] == "damaged"
    assert next(rows([SPOKEN]))["seconds"] == 2.5


def test_a_result_is_what_the_schema_says():
    jsonschema = pytest.importorskip("jsonschema")
    for good in (result(), result(error="bad"), SPOKEN):
        jsonschema.validate(good, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**SPOKEN, "more": 1}, SCHEMA)


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"workers": 0}, {"speaker_count": 0}])
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(InputError) as caught:
        Options(**wrong).check()
    assert caught.value.param == next(iter(wrong))


def test_nothing_heavy_is_imported():
    code = (
        "import sys, omni.batch, omni.batch.command; "
        "print('torch' in sys.modules, 'av' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
