"""The table of the protocol is complete, and says what the server does."""

import re
from pathlib import Path

import pytest
from openai.types import realtime as rt
from openai.types.realtime.realtime_audio_input_turn_detection import SemanticVad, ServerVad
from realtime_types import CLIENT, EXTENSIONS, SERVER

from runtime.wire import CLIENT_EVENTS

DOC = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
WORDS = ("supported", "differs", "not meaningful here")
ROWS = {
    name: (state.strip(), why.strip())
    for name, state, why in re.findall(r"^\| `([\w.]+)` \|([^|]*)\|(.*)\|$", DOC, re.M)
}


def fields(model, path):
    return [f"{path}.{name}" for name in model.model_fields]


EXPECTED = [
    *CLIENT,
    *SERVER,
    *fields(rt.RealtimeSessionCreateRequest, "session"),
    *fields(rt.RealtimeAudioConfigInput, "session.audio.input"),
    *fields(rt.RealtimeAudioConfigOutput, "session.audio.output"),
    *fields(rt.AudioTranscription, "session.audio.input.transcription"),
    *fields(ServerVad, "session.audio.input.turn_detection"),
    *fields(SemanticVad, "session.audio.input.turn_detection"),
    *fields(rt.RealtimeResponseCreateParams, "response"),
]


@pytest.mark.parametrize("name", dict.fromkeys(EXPECTED))
def test_every_event_and_field_has_a_row(name):
    assert name in ROWS, f"docs/protocol.md has no row for {name}"
    state, why = ROWS[name]
    assert state in WORDS
    assert state == "supported" or why, f"{name} {state}, but the row does not say why"


def test_no_row_is_about_what_the_protocol_does_not_have():
    assert ROWS.keys() <= {*EXPECTED}


def test_what_clients_may_send_is_what_the_table_says():
    understood = {name for name in CLIENT if ROWS[name][0] != "not meaningful here"}
    assert understood == CLIENT_EVENTS.keys() & CLIENT.keys()
    for name in CLIENT_EVENTS.keys() - CLIENT.keys():
        assert f"`{name}`" in DOC


def test_our_own_fields_are_named():
    ours = DOC[DOC.index("## Ours") :]
    for path in EXTENSIONS:
        assert f"`{path}`" in ours or f"`{path.rpartition('.')[2]}`" in ours, path
