import base64
import dataclasses

import numpy as np

from omni import events as ev
from omni.types import AudioChunk, Transcript
from runtime.conversation import Conversation
from runtime.records import KeepInput, KeepMedia
from runtime.settings import Defaults
from talk import WEATHER, Talk, call, kept, typed


def test_a_tool_call_is_its_own_item_and_its_output_is_read_by_the_next_answer():
    talk = Talk(tools=[WEATHER])
    talk.turn("How is the weather in Oslo?")
    start = talk.last(ev.Start)
    assert [tool.name for tool in start.tools.tools] == ["weather"]
    assert start.tools.choice == "auto"
    call(talk)
    talk.end()
    begin = talk.types.index("response.created")
    assert talk.types[begin:] == [
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "conversation.item.created",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    added = talk.named("response.output_item.added")[0]["item"]
    assert (added["status"], added["arguments"]) == ("in_progress", "")
    done = talk.named("response.function_call_arguments.done")[0]
    assert (done["name"], done["arguments"]) == ("weather", '{"city":"Oslo"}')
    assert talk.named("response.done")[0]["response"]["output"][0]["status"] == "completed"
    output = {"type": "function_call_output", "call_id": done["call_id"], "output": "rain"}
    talk.send("conversation.item.create", item=output)
    talk.send("response.create")
    asked, called, answered = talk.last(ev.Start).messages[-3:]
    assert asked.text == "How is the weather in Oslo?"
    assert called.tool_calls[0].arguments == '{"city":"Oslo"}'
    assert (answered.role, answered.text, answered.call_id) == ("tool", "rain", done["call_id"])


def test_words_before_a_call_are_a_message_of_their_own_and_one_message_for_the_model():
    talk = Talk(tools=[WEATHER])
    talk.turn("Weather?")
    talk.answer("Let me look.", end=False)
    call(talk)
    call(talk, '{"city":"Rome"}', index=1)
    talk.end()
    response = talk.named("response.done")[0]["response"]
    kinds = [item["type"] for item in response["output"]]
    assert kinds == ["message", "function_call", "function_call"]
    closed = talk.types.index("response.output_audio.done")
    assert closed < talk.types.index("response.function_call_arguments.delta")
    indexes = [e["output_index"] for e in talk.named("response.output_item.done")]
    assert indexes == [0, 1, 2]
    talk.clock.now += 2
    talk.turn("Well?")
    said = talk.last(ev.Start).messages[-2]
    assert said.text == "Let me look."
    assert [c.arguments for c in said.tool_calls] == ['{"city":"Oslo"}', '{"city":"Rome"}']


def test_white_space_before_a_call_is_no_message():
    talk = Talk(tools=[WEATHER])
    talk.turn("Weather?")
    talk.engine(ev.TextDelta(talk.last(ev.Start).response_id, "\n", talk.clock.now))
    call(talk)
    talk.end()
    output = talk.named("response.done")[0]["response"]["output"]
    assert [item["type"] for item in output] == ["function_call"]


def test_a_call_that_is_cut_short_is_not_run_and_not_read():
    talk = Talk(tools=[WEATHER])
    talk.turn("Weather?")
    call(talk, end=False)
    talk.send("response.cancel")
    talk.end("cancelled")
    assert not talk.named("response.function_call_arguments.done")
    assert talk.named("response.output_item.done")[0]["item"]["status"] == "incomplete"
    talk.turn("Never mind.")
    assert not any(m.tool_calls for m in talk.last(ev.Start).messages)


def test_a_response_may_bring_its_own_tools_and_choice():
    talk = Talk()
    choice = {"type": "function", "name": "weather"}
    talk.send("response.create", response={"tools": [WEATHER], "tool_choice": choice})
    tools = talk.last(ev.Start).tools
    assert (tools.choice, tools.name) == ("required", "weather")


def test_history_may_hold_calls_and_words_of_sound_that_is_gone():
    talk = Talk()
    sound = {"type": "input_audio", "audio": None, "transcript": "Weather?"}
    talk.send("conversation.item.create", item={"role": "user", "content": [sound]})
    past = {"type": "function_call", "name": "weather", "arguments": "{}", "call_id": "c1"}
    talk.send("conversation.item.create", item=past)
    output = {"type": "function_call_output", "call_id": "c1", "output": "sun"}
    talk.send("conversation.item.create", item=output)
    talk.send("response.create")
    messages = talk.last(ev.Start).messages[1:]
    assert [m.role for m in messages] == ["user", "assistant", "tool"]
    assert messages[0].text == "Weather?"


def test_an_answer_apart_waits_for_the_one_in_the_conversation_and_is_not_interrupted():
    talk = Talk()
    talk.turn("Tell me a story.")
    first = talk.answer("Once", end=False)
    talk.send("response.create", response={"conversation": "none", "metadata": {"for": "title"}})
    assert not talk.named("error")
    talk.end()
    created = talk.named("response.created")[-1]["response"]
    assert created["metadata"] == {"for": "title"}
    assert created["id"] == talk.last(ev.Start).response_id != first
    cancels = len([c for c in talk.commands if isinstance(c, ev.Cancel)])
    talk.sound(0.9, 1.0)
    assert len([c for c in talk.commands if isinstance(c, ev.Cancel)]) == cancels


def test_cleared_output_is_silent_and_its_words_go_on():
    talk = Talk()
    talk.turn("Tell me a story.")
    response = talk.answer("Once", end=False)
    talk.send("output_audio_buffer.clear")
    assert talk.events[-1]["response_id"] == response
    sounds = len(talk.named("response.output_audio.delta"))
    talk.answer(" upon a time.", end=False)
    assert len(talk.named("response.output_audio.delta")) == sounds
    talk.end()
    done = talk.named("response.output_audio_transcript.done")[0]
    assert done["transcript"] == "Once upon a time."


def test_an_idle_user_is_spoken_to_after_the_answer_was_heard():
    vad = {"type": "server_vad", "idle_timeout_ms": 5000}
    talk = Talk(audio={"input": {"turn_detection": vad}})
    talk.sound(0.9, 1.0)
    talk.sound(0.01, 0.6)
    talk.hear("Hello.")
    talk.answer("Hi, how can I help?", seconds=2.0, heard=0.0)
    talk.sound(0.01, 6.5)
    assert not talk.named("input_audio_buffer.timeout_triggered")
    talk.sound(0.01, 0.6)
    timeout = talk.named("input_audio_buffer.timeout_triggered")[0]
    assert 4900 < timeout["audio_end_ms"] - timeout["audio_start_ms"] < 5200
    assert talk.named("input_audio_buffer.committed")[-1]["item_id"] == timeout["item_id"]
    assert talk.types[-2:] == ["response.created", "rate_limits.updated"]
    assert "nothing" in talk.last(ev.Start).messages[-1].text
    talk.answer("Are you there?", seconds=1.0, heard=0.0)
    talk.sound(0.9, 5.0)
    assert len(talk.named("input_audio_buffer.timeout_triggered")) == 1


def test_g711_comes_in_and_goes_out_at_8_kilohertz():
    law = {"format": {"type": "audio/pcmu"}}
    talk = Talk(audio={"input": law, "output": law})
    talk.send("input_audio_buffer.append", audio=base64.b64encode(b"\xff" * 800).decode())
    chunk = talk.last(ev.Append).chunk
    assert (chunk.sample_rate, len(chunk.pcm)) == (8000, 800)
    talk.send("conversation.item.create", item=typed("Hi"))
    talk.send("response.create")
    talk.answer("Hello.", seconds=1.0)
    deltas = talk.named("response.output_audio.delta")
    assert sum(len(base64.b64decode(e["delta"])) for e in deltas) == 8000
    wire = talk.named("response.done")[0]["response"]["audio"]["output"]["format"]
    assert wire == {"type": "audio/pcmu"}


def test_noise_reduction_and_truncation_reach_the_engine():
    talk = Talk(
        audio={"input": {"noise_reduction": {"type": "far_field"}}},
        truncation={
            "type": "retention_ratio",
            "retention_ratio": 0.5,
            "token_limits": {"post_instructions": 500},
        },
    )
    talk.sound(0.0, 0.1)
    assert talk.last(ev.Append).noise_reduction == "far_field"
    talk.send("response.create")
    start = talk.last(ev.Start)
    assert (start.keep_ratio, start.context_limit) == (0.5, 500)
    talk.end()
    talk.send("session.update", session={"truncation": "disabled"})
    talk.send("response.create")
    assert talk.last(ev.Start).keep_ratio is None


def test_the_session_shows_what_is_in_effect():
    talk = Talk(
        audio={
            "input": {
                "turn_detection": {"type": "server_vad"},
                "transcription": {"model": "gpt-4o-mini-transcribe"},
            },
            "output": {"speed": None, "voice": None, "format": None},
        },
        model="gpt-realtime",
        tools=None,
        tool_choice=None,
        max_output_tokens=None,
    )
    session = talk.named("session.updated")[-1]["session"]
    assert session["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }
    assert session["audio"]["output"] == {
        "speed": 1.0,
        "voice": "auto",
        "format": {"type": "audio/pcm", "rate": 24000},
    }
    assert session["audio"]["input"]["transcription"] == {"model": "whisper-base"}
    assert (session["tools"], session["tool_choice"]) == ([], "auto")
    assert session["max_output_tokens"] == "inf"
    assert session["model"] == Defaults().model


def test_everything_acknowledged_was_kept_before():
    talk = Talk(instructions="Be brief.", tools=[WEATHER])
    talk.turn("My name is Ada.")
    talk.answer("Hello Ada.")
    talk.send("conversation.item.create", item=typed("First."), previous_item_id="root")
    talk.send("conversation.item.create", item=typed("Gone."))
    talk.send("conversation.item.delete", item_id=talk.machine.items[-1].id)
    talk.turn("Weather in Oslo?")
    call(talk)
    talk.end()
    again = Talk.__new__(Talk)
    again.events, again.commands, again.records = [], [], []
    again.clock, again.position = talk.clock, 0.0
    again.machine = Conversation(Defaults(voices=("heart",)), kept(talk), clock=talk.clock)
    again._note(again.machine.open())
    session = again.events[0]["session"]
    assert session["id"] == talk.machine.id
    assert session["instructions"] == "Be brief."
    assert session["tools"] == [WEATHER]
    assert [e["item"] for e in again.named("conversation.item.done")] == [
        item.wire() for item in talk.machine.items
    ]
    expected = talk.machine._answering._messages(talk.machine.items, "Be brief.")
    assert again.last(ev.Prepare).messages == expected
    sounds = [r for r in talk.records if isinstance(r, KeepInput)]
    assert len(sounds) == 2
    assert sounds[0].end - sounds[0].start > 1.0
    [spoken] = [r for r in talk.records if isinstance(r, KeepMedia)]
    assert spoken.content.seconds == 1.0


def test_an_answer_cut_off_by_the_end_of_the_server_is_there_as_far_as_it_was_told():
    talk = Talk()
    talk.turn("Tell me a story.")
    for word in ("Once ", "upon ", "a ", "time"):
        talk.engine(ev.TextDelta(talk.last(ev.Start).response_id, word, talk.clock.now))
        talk.clock.now += 0.6
    saved = kept(talk)
    assert saved.items[-1]["status"] == "in_progress"
    again = Conversation(Defaults(), saved)
    events = [e for e in again.open() if isinstance(e, dict)]
    last = [e for e in events if e["type"] == "conversation.item.done"][-1]["item"]
    assert last["status"] == "incomplete"
    assert last["content"][0]["transcript"] == "Once upon a time"


def test_a_turn_that_nobody_had_heard_yet_is_heard_after_the_restart():
    talk = Talk()
    talk.sound(0.9, 1.0)
    talk.send("input_audio_buffer.commit")
    [sound] = [r for r in talk.records if isinstance(r, KeepInput)]
    saved = dataclasses.replace(
        kept(talk), media={sound.name: AudioChunk(np.zeros(24_000, np.float32), 24_000)}
    )
    again = Conversation(Defaults(), saved)
    [asked] = [c for c in again.open() if isinstance(c, ev.Transcribe)]
    effects = again.handle(ev.Transcribed(asked.key, Transcript("Hello.", "en", 1.0), 1.0))
    assert effects[-1]["transcript"] == "Hello."


def test_who_wants_it_is_told_what_the_user_says_while_they_speak():
    talk = Talk(audio={"input": {"transcription": {"partial": True}}})
    talk.sound(0.9, 1.0)
    talk.sound(0.01, 0.1)
    talk.hear("Could you")
    talk.sound(0.9, 0.5)
    started = talk.named("input_audio_buffer.speech_started")[0]
    [partial] = talk.named("input_audio_buffer.partial_transcript")
    assert (partial["item_id"], partial["transcript"]) == (started["item_id"], "Could you")


def test_the_first_sound_of_a_clause_says_which_words_it_carries():
    talk = Talk()
    talk.turn("Hello?")
    talk.answer("Hi there.")
    assert talk.named("response.output_audio.delta")[0]["clause"] == "Hi there."
