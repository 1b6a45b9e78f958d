import base64
import json

import numpy as np
import pytest

from omni import events as ev
from omni.types import Span, Transcript, Usage
from talk import Talk, read


def test_a_spoken_turn_is_answered_with_the_documented_events_in_order():
    talk = Talk()
    talk.turn("What is the capital of France?")
    talk.answer("Paris.")
    assert talk.types == [
        "session.created",
        "conversation.created",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.created",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "conversation.item.created",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    done = talk.events[-1]["response"]
    assert done["status"] == "completed"
    assert done["output"][0]["content"][0]["transcript"] == "Paris."
    assert done["usage"]["input_token_details"]["cached_tokens"] == 10


def test_timings_are_milliseconds_since_the_end_of_speech():
    talk = Talk()
    talk.turn("Hello?")
    talk.clock.now += 0.1
    talk.answer("Hi.")
    timings = talk.events[-1]["response"]["timings"]
    assert timings["speech_end"] == 0
    assert 60 <= timings["silence"] <= 100
    assert timings["silence"] <= timings["turn_end"] <= 330
    assert timings["first_audio"] == pytest.approx(timings["transcript"] + 100, abs=1)


def test_a_follow_up_reads_the_turns_before_it():
    talk = Talk()
    talk.turn("What is the capital of France?")
    talk.answer("Paris.")
    talk.turn("How many people live there?")
    assert read(talk.last(ev.Start)) == [
        ("user", "What is the capital of France?"),
        ("assistant", "Paris."),
        ("user", "How many people live there?"),
    ]


def test_work_starts_at_the_pause_and_is_dropped_when_the_user_goes_on():
    talk = Talk()
    talk.sound(0.9, 1.0)
    talk.sound(0.01, 0.13)
    early = talk.last(ev.Transcribe)
    talk.hear("What is")
    assert read(talk.last(ev.Prepare)) == [("user", "What is")]
    talk.sound(0.9, 0.5)
    late = ev.Transcribed(early.key, Transcript("What is", "en", 1.0), talk.clock.now)
    count = len(talk.events)
    talk.engine(late)
    assert len(talk.events) == count, "nothing of the speculation is seen outside"
    talk.turn("What is the time?")
    assert read(talk.last(ev.Start)) == [("user", "What is the time?")]


def test_a_user_who_goes_on_after_the_decision_gets_one_answer_to_all_of_it():
    talk = Talk()
    talk.sound(0.9, 1.0)
    talk.sound(0.01, 0.13)
    talk.engine(ev.TurnJudged(talk.last(ev.JudgeTurn).key, 0.9, talk.clock.now))
    talk.sound(0.01, 0.25)
    assert talk.named("input_audio_buffer.committed"), "the turn was taken for finished"
    talk.sound(0.9, 0.2)
    first = next(c for c in talk.commands if isinstance(c, ev.Transcribe))
    talk.engine(ev.Transcribed(first.key, Transcript("What language", "en", 1.0), 0.0))
    assert not talk.named("response.created"), "the user is speaking"
    talk.turn("do they speak in Brazil?")
    assert read(talk.last(ev.Start)) == [
        ("user", "What language"),
        ("user", "do they speak in Brazil?"),
    ]
    assert len(talk.named("response.created")) == 1


def test_a_noise_after_the_turn_does_not_cost_the_answer():
    talk = Talk()
    talk.sound(0.9, 1.0)
    talk.sound(0.01, 0.13)
    talk.engine(ev.TurnJudged(talk.last(ev.JudgeTurn).key, 0.9, talk.clock.now))
    talk.sound(0.01, 0.25)
    first = talk.last(ev.Transcribe)
    talk.sound(0.9, 0.2)
    talk.engine(ev.Transcribed(first.key, Transcript("Hello?", "en", 1.0), 0.0))
    talk.turn("")
    assert read(talk.last(ev.Start)) == [("user", "Hello?")]


def test_the_transcript_of_the_pause_is_used_when_the_turn_ends_there():
    talk = Talk()
    talk.sound(0.9, 1.0)
    talk.sound(0.01, 0.13)
    talk.hear("Good morning.")
    asked = len([c for c in talk.commands if isinstance(c, ev.Transcribe)])
    talk.engine(ev.TurnJudged(talk.last(ev.JudgeTurn).key, 0.9, talk.clock.now))
    talk.sound(0.01, 0.2)
    assert read(talk.last(ev.Start)) == [("user", "Good morning.")]
    assert len([c for c in talk.commands if isinstance(c, ev.Transcribe)]) == asked


def test_a_transcript_that_could_not_be_made_ahead_is_asked_for_again():
    talk = Talk()
    talk.sound(0.9, 1.0)
    talk.sound(0.01, 0.13)
    first = talk.last(ev.Transcribe)
    talk.engine(ev.InputFailed(first.key, "no luck", talk.clock.now))
    talk.engine(ev.TurnJudged(talk.last(ev.JudgeTurn).key, 0.9, talk.clock.now))
    talk.sound(0.01, 0.25)
    assert talk.last(ev.Transcribe) is not first
    talk.hear("Hello?")
    assert read(talk.last(ev.Start)) == [("user", "Hello?")]


def test_speaking_over_the_answer_cancels_it_and_drops_what_comes_late():
    talk = Talk()
    talk.turn("Tell me a story.")
    response = talk.answer("Once upon a time there was a fox.", 3.0, end=False)
    talk.clock.now += 0.5
    talk.sound(0.9, 0.3)
    assert talk.last(ev.Cancel).response_id == response
    count = len(talk.events)
    talk.engine(ev.TextDelta(response, " And then", talk.clock.now))
    assert len(talk.events) == count
    talk.end("cancelled")
    done = talk.named("response.done")[-1]["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"]["reason"] == "turn_detected"


def test_the_history_keeps_what_was_really_heard():
    talk = Talk()
    talk.turn("Tell me a story.")
    talk.answer("Once upon a time there was a fox.", 3.0, heard=1.0)
    item = talk.named("response.output_item.done")[-1]["item"]["id"]
    talk.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=1000)
    assert talk.events[-1]["type"] == "conversation.item.truncated"
    talk.turn("Why?")
    assert read(talk.last(ev.Start))[1] == ("assistant", "Once upon a")


def test_what_was_heard_is_estimated_for_a_client_that_does_not_truncate():
    talk = Talk()
    talk.turn("Tell me a story.")
    talk.answer("Once upon a time there was a fox.", 30.0, heard=9.0)
    talk.turn("Stop.")
    said = read(talk.last(ev.Start))[1][1]
    assert said
    assert "Once upon a time there was a fox.".startswith(said)
    assert said != "Once upon a time there was a fox."


def test_an_answer_that_was_heard_to_its_end_stays_whole():
    talk = Talk()
    talk.turn("Hello.")
    talk.answer("Hello to you.", 0.5)
    talk.turn("Bye.")
    assert read(talk.last(ev.Start))[1] == ("assistant", "Hello to you.")


def test_noise_that_is_no_speech_gets_no_answer():
    talk = Talk()
    talk.turn("")
    assert not talk.named("response.created")
    assert talk.named("conversation.item.input_audio_transcription.completed")


def test_a_turn_spoken_while_an_answer_may_not_be_interrupted_is_answered_after_it():
    talk = Talk()
    detection = {"type": "semantic_vad", "interrupt_response": False}
    talk.send(
        "session.update",
        session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}},
    )
    talk.turn("One.")
    first = talk.answer("First answer.", end=False)
    talk.turn("Two.")
    assert not any(isinstance(c, ev.Cancel) for c in talk.commands)
    assert talk.last(ev.Start).response_id == first
    talk.end()
    assert read(talk.last(ev.Start))[-1] == ("user", "Two.")


def test_push_to_talk_answers_when_the_client_says_so():
    talk = Talk(audio={"input": {"turn_detection": None}})
    talk.sound(0.9, 1.0)
    assert "input_audio_buffer.speech_started" not in talk.types
    talk.send("input_audio_buffer.commit")
    assert talk.last(ev.Transcribe).end == pytest.approx(1.0, abs=0.05)
    talk.send("response.create")
    assert "response.created" in talk.types
    assert not any(isinstance(c, ev.Start) for c in talk.commands), "the transcript is not here"
    talk.hear("Good evening.")
    assert read(talk.last(ev.Start)) == [("user", "Good evening.")]


def test_committing_nothing_is_an_error_that_says_how_much_is_needed():
    talk = Talk(audio={"input": {"turn_detection": None}})
    talk.send("input_audio_buffer.commit", event_id="mine")
    error = talk.events[-1]["error"]
    assert error["code"] == "input_audio_buffer_commit_empty"
    assert error["event_id"] == "mine"
    assert "100 ms" in error["message"]


def test_a_cleared_buffer_is_not_committed():
    talk = Talk(audio={"input": {"turn_detection": None}})
    talk.sound(0.9, 1.0)
    talk.send("input_audio_buffer.clear")
    talk.send("input_audio_buffer.commit")
    assert talk.events[-1]["type"] == "error"


def test_typed_text_is_answered_in_text_when_asked_so():
    talk = Talk(output_modalities=["text"])
    content = [{"type": "input_text", "text": "Hi"}]
    talk.send(
        "conversation.item.create", item={"type": "message", "role": "user", "content": content}
    )
    talk.send("response.create")
    assert talk.last(ev.Start).speak is False
    talk.answer("Hello!")
    assert talk.named("response.output_text.delta")[0]["delta"] == "Hello!"
    assert not talk.named("response.output_audio.delta")


def test_a_shown_picture_is_read_before_the_question():
    talk = Talk()
    url = "data:image/png;base64," + base64.b64encode(b"png").decode()
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": url},
    ]
    talk.send(
        "conversation.item.create", item={"type": "message", "role": "user", "content": content}
    )
    talk.send("response.create")
    assert not any(isinstance(c, ev.Start) for c in talk.commands), "the picture is not seen yet"
    see = talk.last(ev.See)
    assert see.data == b"png"
    talk.engine(ev.Seen(see.key, Span("image", "a cat (99% sure)"), talk.clock.now))
    assert read(talk.last(ev.Start)) == [("user", "[Your camera shows a cat]\nWhat is this?")]


def test_the_latest_camera_frame_belongs_to_the_next_turn_only():
    talk = Talk()
    for name in (b"old", b"new"):
        talk.send("input_image_buffer.append", image=base64.b64encode(name).decode())
        see = talk.last(ev.See)
        talk.engine(ev.Seen(see.key, Span("image", f"a {name.decode()} cup"), talk.clock.now))
    talk.turn("What is this?")
    assert read(talk.last(ev.Start)) == [("user", "[Your camera shows a new cup]\nWhat is this?")]
    talk.answer("A cup.")
    talk.turn("Thanks.")
    assert read(talk.last(ev.Start))[-1] == ("user", "Thanks.")


def test_a_picture_that_cannot_be_read_costs_an_error_and_not_the_answer():
    talk = Talk()
    url = "data:image/png;base64," + base64.b64encode(b"junk").decode()
    content = [
        {"type": "input_image", "image_url": url},
        {"type": "input_text", "text": "Hello"},
    ]
    talk.send(
        "conversation.item.create", item={"type": "message", "role": "user", "content": content}
    )
    talk.send("response.create")
    talk.engine(ev.InputFailed(talk.last(ev.See).key, "not a picture", talk.clock.now))
    assert talk.named("error")[-1]["error"]["message"] == "not a picture"
    assert read(talk.last(ev.Start)) == [("user", "Hello")]


def test_an_answer_apart_from_the_conversation_leaves_no_item():
    talk = Talk()
    message = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Say A"}],
    }
    talk.send(
        "response.create",
        response={
            "conversation": "none",
            "input": [message],
            "output_modalities": ["text"],
            "metadata": {"purpose": "test"},
        },
    )
    assert read(talk.last(ev.Start)) == [("user", "Say A")]
    talk.answer("A")
    assert talk.machine.items == []
    assert talk.events[-1]["response"]["metadata"] == {"purpose": "test"}


def test_a_deleted_item_is_forgotten():
    talk = Talk()
    talk.turn("My name is Ada.")
    talk.answer("Hello Ada.")
    talk.send("conversation.item.delete", item_id=talk.machine.items[0].id)
    assert talk.events[-1]["type"] == "conversation.item.deleted"
    talk.turn("Who am I?")
    assert read(talk.last(ev.Start)) == [("assistant", "Hello Ada."), ("user", "Who am I?")]


def test_items_can_be_put_where_the_client_wants_them():
    talk = Talk()
    for name, after in (("b", None), ("a", "root"), ("c", "b")):
        content = [{"type": "input_text", "text": name}]
        item = {"id": name, "type": "message", "role": "user", "content": content}
        fields = {"previous_item_id": after} if after else {}
        talk.send("conversation.item.create", item=item, **fields)
    assert [item.id for item in talk.machine.items] == ["a", "b", "c"]


def test_a_cancelled_answer_that_never_started_is_done_at_once():
    talk = Talk(audio={"input": {"turn_detection": None}})
    talk.sound(0.9, 1.0)
    talk.send("input_audio_buffer.commit")
    talk.send("response.create")
    talk.send("response.cancel")
    done = talk.events[-1]["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "client_cancelled")


def test_two_answers_at_once_are_refused_and_the_first_goes_on():
    talk = Talk()
    talk.turn("Hello.")
    talk.send("response.create")
    assert talk.events[-1]["error"]["code"] == "conversation_already_has_active_response"
    talk.answer("Hi.")
    assert talk.events[-1]["type"] == "response.done"


def test_dropped_messages_and_length_are_told():
    talk = Talk()
    talk.turn("Hello.")
    start = talk.last(ev.Start)
    talk.answer("Hi", end=False)
    usage = Usage(4000, 0, 1024, dropped_messages=2)
    talk.engine(ev.ResponseDone(start.response_id, "length", usage, talk.clock.now))
    done = talk.events[-1]["response"]
    assert done["usage"]["dropped_messages"] == 2
    assert (done["status"], done["status_details"]["reason"]) == (
        "incomplete",
        "max_output_tokens",
    )


def test_a_language_without_a_voice_stays_text_and_says_so():
    talk = Talk()
    talk.turn("Speak Japanese.")
    start = talk.last(ev.Start)
    talk.engine(ev.TextDelta(start.response_id, "こんにちは。", talk.clock.now))
    talk.engine(ev.VoiceMissing(start.response_id, "ja", talk.clock.now))
    talk.end()
    done = talk.events[-1]["response"]
    assert done["output"][0]["content"][0]["transcript"] == "こんにちは。"
    assert "'ja'" in done["warnings"][0]


def test_a_failed_answer_is_told_and_the_conversation_goes_on():
    talk = Talk()
    talk.turn("Hello.")
    start = talk.last(ev.Start)
    talk.engine(ev.ResponseDone(start.response_id, "failed", Usage(), talk.clock.now, "boom"))
    assert talk.events[-1]["response"]["status_details"]["error"]["message"] == "boom"
    talk.turn("Again.")
    talk.answer("Yes.")
    assert talk.events[-1]["response"]["status"] == "completed"


def test_the_voice_is_fixed_after_the_first_audio():
    talk = Talk()
    talk.turn("Hello.")
    talk.answer("Hi.")
    talk.send(
        "session.update", session={"type": "realtime", "audio": {"output": {"voice": "heart"}}}
    )
    assert talk.events[-1]["error"]["code"] == "cannot_update_voice"


def test_a_session_update_merges_and_null_clears():
    talk = Talk(instructions="Be brief.", audio={"output": {"speed": 1.2}})
    session = talk.events[-1]["session"]
    assert session["instructions"] == "Be brief."
    assert session["audio"]["output"]["speed"] == 1.2
    assert session["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    talk.send(
        "session.update", session={"type": "realtime", "audio": {"input": {"transcription": None}}}
    )
    talk.turn("Hello.")
    assert not talk.named("conversation.item.input_audio_transcription.completed")


@pytest.mark.parametrize(
    ("event", "param", "words"),
    [
        ('{"type": "session.update", "session": {"type": "realtime", "colour": 1}}', "session.colour", "unknown"),  # noqa: E501
        ('{"type": "session.update", "session": {"audio": {"output": {"speed": 9}}}}', "session.audio.output.speed", "0.25"),  # noqa: E501
        ('{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}}', "session.audio.input.format.rate", "24000"),  # noqa: E501
        ('{"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "magic"}}}}}', "session.audio.input.turn_detection.type", "server_vad"),  # noqa: E501
        ('{"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}}', "session.audio.output.voice", "heart"),  # noqa: E501
        ('{"type": "session.update", "session": {"audio": {"input": {"transcription": {"language": "xx"}}}}}', "session.audio.input.transcription.language", "ISO 639-1"),  # noqa: E501
        ('{"type": "session.update"}', "session", "needs"),
        ('{"type": "session.update", "session": 3}', "session", "object"),
        ('{"type": "dance"}', "type", "unknown event"),
        ('{"type": "response.create", "session": {}}', "session", "no field"),
        ('{"type": "input_audio_buffer.append"}', "audio", "required"),
        ('{"type": "input_audio_buffer.append", "audio": "AAA"}', "audio", "base64"),
        ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "audio", "16-bit"),
        ('{"type": "input_audio_buffer.append", "audio": "AAA=", "loud": true}', "loud", "unknown"),
        ('{"type": "input_image_buffer.append", "image": ""}', "image", "empty"),
        ('{"type": "conversation.item.create", "item": {"role": "user", "content": []}}', "item.content", "list"),  # noqa: E501
        ('{"type": "conversation.item.create", "item": {"role": "user", "content": [{"type": "input_text"}]}}', "item.content.0.text", "string"),  # noqa: E501
        ('{"type": "conversation.item.create", "item": {"role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png"}]}}', "item.content.0.image_url", "data URL"),  # noqa: E501
        ('{"type": "conversation.item.delete", "item_id": "nope"}', "item_id", "no item"),
        ('{"type": "conversation.item.truncate", "item_id": "nope", "content_index": 0, "audio_end_ms": 1}', "item_id", "no item"),  # noqa: E501
        ('{"type": "response.cancel"}', None, "no such answer"),
        ('{"type": "response.create", "response": {"output_modalities": ["smell"]}}', "response.output_modalities.0", "text"),  # noqa: E501
        ("not json", None, "JSON"),
        ("[1]", None, "object"),
        ("[" * 5000, None, "JSON"),
    ],
)  # fmt: skip
def test_bad_input_gets_an_error_that_names_the_field_and_the_session_goes_on(event, param, words):
    talk = Talk()
    talk._note(talk.machine.receive(event))
    error = talk.events[-1]["error"]
    assert error["param"] == param
    assert words in error["message"]
    talk.turn("Hello.")
    talk.answer("Hi.")
    assert talk.events[-1]["response"]["status"] == "completed"


def test_a_refused_session_update_changes_nothing():
    talk = Talk()
    before = json.dumps(talk.machine.settings.wire)
    talk.send("session.update", session={"instructions": "x", "audio": {"output": {"speed": 9}}})
    assert json.dumps(talk.machine.settings.wire) == before


def test_sound_that_nobody_commits_is_bounded():
    talk = Talk(audio={"input": {"turn_detection": None}})
    minute = base64.b64encode(np.zeros(24_000 * 60, "<i2").tobytes()).decode()
    for _ in range(10):
        talk.send("input_audio_buffer.append", audio=minute)
    talk.send("input_audio_buffer.append", audio=minute)
    assert talk.events[-1]["error"]["code"] == "input_audio_buffer_full"
