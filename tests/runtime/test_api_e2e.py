"""Plain HTTP on the real models, through OpenAI's own client, as its users write it."""

import base64
import json
import re
import threading
import time

import numpy as np
import openai
import pytest

from encoders.media import read_audio, wav_bytes
from omni.client import OmniClient
from omni.types import AudioChunk
from support import DATA, start_server

pytestmark = pytest.mark.e2e

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SENTENCE = "The quick brown fox jumps over the lazy dog. Then it sleeps in the warm sun."


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        yield client


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def chat(client, messages, **options):
    return client.chat.completions.create(model="omni", messages=messages, temperature=0, **options)


def part(kind: str, **fields) -> dict:
    return {"type": kind, kind: fields}


def data_url(name: str, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode((DATA / name).read_bytes()).decode()}"


def test_a_question_is_answered_whole_and_in_pieces(client):
    done = chat(client, QUESTION)
    assert "Paris" in done.choices[0].message.content
    pieces = chat(client, QUESTION, stream=True, stream_options={"include_usage": True})
    said = [piece for piece in pieces if piece.choices or piece.usage]
    text = "".join(piece.choices[0].delta.content or "" for piece in said if piece.choices)
    assert text == done.choices[0].message.content
    assert said[-1].usage.completion_tokens == done.usage.completion_tokens


def test_a_picture_is_seen(client):
    shown = part("image_url", url=data_url("photos/cat.jpg", "image/jpeg"))
    content = [{"type": "text", "text": "What animal is this?"}, shown]
    done = chat(client, [{"role": "user", "content": content}])
    assert re.search(r"cat|mau|tabby", done.choices[0].message.content, re.I)


def test_a_spoken_question_gets_a_spoken_answer(client, transcribe):
    data = base64.b64encode((DATA / "speech/france_slt.flac").read_bytes()).decode()
    asked = [{"role": "user", "content": [part("input_audio", data=data, format="flac")]}]
    audio = {"voice": "alloy", "format": "mp3"}
    done = chat(client, asked, modalities=["text", "audio"], audio=audio)
    spoken = done.choices[0].message.audio
    assert "Paris" in spoken.transcript
    assert done.usage.prompt_tokens_details.audio_tokens > 0
    heard = transcribe(read_audio(base64.b64decode(spoken.data)))
    assert words(heard) == words(spoken.transcript)
    # The next turn points at the answer by its id.
    after = [*asked, {"role": "assistant", "audio": {"id": spoken.id}}]
    after.append({"role": "user", "content": "Which country is that city in? Name the country."})
    assert "France" in chat(client, after).choices[0].message.content


def test_a_clip_is_watched(client, tmp_path):
    import av

    from encoders.media import load_image

    pixels = load_image(DATA / "photos/coffee.jpg", max_side=320).pixels
    pixels = np.ascontiguousarray(pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2])
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("h264", rate=10)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode(None))
    url = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    content = [{"type": "text", "text": "What is shown?"}, part("video_url", url=url)]
    done = chat(client, [{"role": "user", "content": content}])
    assert re.search(r"coffee|cup|espresso|mug", done.choices[0].message.content, re.I)


def test_a_tool_is_called_and_its_output_used(client):
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"name": "get_weather", "description": "The weather of a city", "parameters": city}
    tools = [{"type": "function", "function": tool}]
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    options = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
    done = chat(client, asked, **options)
    assert done.choices[0].finish_reason == "tool_calls"
    [call] = done.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert "Paris" in call.function.arguments
    streamed = ""
    for piece in chat(client, asked, stream=True, **options):
        for delta in piece.choices[0].delta.tool_calls or ():
            streamed += delta.function.arguments or ""
    assert streamed == call.function.arguments
    answer = {"role": "tool", "tool_call_id": call.id, "content": "It rains, 12 degrees."}
    after = [*asked, done.choices[0].message.model_dump(exclude_none=True), answer]
    said = chat(client, after).choices[0].message.content
    assert re.search(r"rain|12", said)


def test_an_answer_follows_a_schema(client):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    asked = [{"role": "user", "content": "Invent a person with a name and an age."}]
    person = json.loads(chat(client, asked, response_format=wanted).choices[0].message.content)
    assert person.keys() == {"name", "age"}
    assert isinstance(person["age"], int)


@pytest.mark.parametrize("format", ["json", "text", "srt", "vtt", "verbose_json"])
def test_a_recording_is_transcribed(client, format):
    with (DATA / "speech/planet_emma.flac").open("rb") as file:
        heard = client.audio.transcriptions.create(
            model="whisper-1", file=file, response_format=format
        )
    text = heard if isinstance(heard, str) else heard.text
    assert "largest one in the solar system" in text
    if format in ("srt", "vtt"):
        assert re.search(r"00:00:0\d[.,]\d{3} --> 00:00:0[45]", text)
    if format == "verbose_json":
        assert heard.language == "en"
        assert heard.duration == pytest.approx(5.3, abs=0.01)
        assert 0 < heard.segments[0].start < 1


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_speech_says_the_words(client, transcribe, format):
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=SENTENCE, response_format=format
    ) as response:
        data = b"".join(response.iter_bytes())
    if format == "pcm":
        chunk = AudioChunk(np.frombuffer(data, "<i2").astype(np.float32) / 32768, 24_000)
    else:
        chunk = read_audio(data)
    assert words(transcribe(chunk, "en")) == words(SENTENCE)


def test_speech_changes_language_with_the_text(client, transcribe):
    spoken = client.audio.speech.create(
        model="tts-1", voice="alloy", input="今天天气很好，我们去公园吧。", response_format="wav"
    )
    assert "今天天" in transcribe(read_audio(spoken.content), "zh")


def test_faster_speech_is_shorter(client):
    lengths = [
        read_audio(
            client.audio.speech.create(
                model="tts-1", voice="alloy", input=SENTENCE, response_format="wav", speed=speed
            ).content
        ).seconds
        for speed in (1.0, 1.5)
    ]
    assert lengths[1] < 0.85 * lengths[0]


def test_errors_are_those_that_the_client_knows(client, tmp_path):
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("llama")
    with pytest.raises(openai.BadRequestError, match="'n'"):
        chat(client, QUESTION, n=3)
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, [{"role": "user", "content": "word " * 6000}])
    assert refused.value.code == "context_length_exceeded"
    assert "omni" in [model.id for model in client.models.list()]


def test_a_server_with_keys_and_one_place(tmp_path):
    process, url = start_server(tmp_path / "log.txt", "--api-key", "secret", "--max-sessions", "1")
    try:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong").models.list()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client:
            long = [{"role": "user", "content": "Tell me a very long story about the sea."}]
            with chat(client, long, stream=True, max_tokens=200) as stream:
                next(iter(stream))
                with pytest.raises(openai.RateLimitError):
                    chat(client, QUESTION)
            again = client.with_options(max_retries=5)
            assert "Paris" in chat(again, QUESTION).choices[0].message.content
    finally:
        process.terminate()
        process.wait(30)


def test_live_talk_goes_on_while_a_long_recording_is_transcribed(server, client):
    clip = read_audio(DATA / "speech/planet_emma.flac").pcm
    recording = np.concatenate([clip, np.zeros(8_000, np.float32)] * 50)
    file = ("long.wav", wav_bytes(AudioChunk(recording, 16_000)))
    heard: list[str] = []

    def transcribe() -> None:
        heard.append(client.audio.transcriptions.create(model="omni", file=file).text)

    with OmniClient(server) as omni:
        omni.ask("Hello.")
        thread = threading.Thread(target=transcribe)
        thread.start()
        time.sleep(1)
        beside = []
        while thread.is_alive() and len(beside) < 5:
            beside.append(omni.ask("What is the capital of France?"))
        during = len(beside) if thread.is_alive() else len(beside) - 1
        thread.join()
    assert heard[0].count("solar system") > 45
    assert during >= 2, "questions were answered meanwhile"
    assert all("Paris" in reply.text for reply in beside)
