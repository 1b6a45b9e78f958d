"""What pictures show: captions, answers with probabilities, sentences that fit."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from http_server import served
from PIL import Image
from typer.testing import CliRunner

from fakes import ScriptedLlm, fake_parts
from omni.errors import InputError
from omni.llm.cache import Output
from omni.search import Encoded
from omni.types import ImageFrame
from runtime.assembly import Parts
from runtime.vision import Seen, Vision


class Meaning:
    """Every picture means "wide"."""

    def items(self, frames, words):
        return Encoded(np.ones((len(frames), 1), np.float32), None, [], [])

    def words(self, texts):
        return np.array([[float(text == "wide")] for text in texts], np.float32)


@pytest.fixture(autouse=True)
def _encoder(monkeypatch):
    monkeypatch.setattr("runtime.vision.picture_encoder", Meaning)


class Likes(ScriptedLlm):
    """Answers "Yes.", and of every byte that the note about a picture holds it thinks more."""

    def run(self, feeds, *, all_logits=False, hidden=False):
        (feed,) = feeds
        if not all_logits:
            out = super().run(feeds)
            out.logits[:, list(b"N")] = 8.0
        else:
            feed.cache.tokens.extend(feed.tokens)
            out = Output(torch.zeros(len(feed.tokens), 256))
        note = re.search(rb"\[Your camera shows (.*?)\]", bytes(feed.cache.tokens))
        if note and all_logits:
            out.logits[:, list(note[1])] = 3.0
        return out


@pytest.fixture
def parts():
    return Parts(**{**vars(fake_parts()), "llm": Likes(lambda asked: "Yes.")})


def picture(width=60, height=40, colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def frame(width=60, height=40):
    return ImageFrame(torch.zeros(height, width, 3, dtype=torch.uint8).numpy())


def test_yes_has_the_probability_against_no(parts):
    vision = Vision(parts)
    said = vision.answer(vision.see(frame()), "Is it red?")
    assert said.text == "Yes."
    # Logits of 9 and 8; what else might be said does not count.
    assert said.probability == pytest.approx(1 / (1 + torch.e**-1), abs=0.01)


def test_other_answers_have_that_of_their_words(parts):
    parts.llm.script = lambda asked: "ok"
    vision = Vision(parts)
    said = vision.answer(vision.see(frame()), "How is it?")
    one = torch.zeros(256)
    one[0], one[list(b"N")] = 9.0, 8.0
    assert said.text == "ok"
    assert said.probability == pytest.approx(float(one.softmax(0)[0]) ** 3, rel=0.01)


def test_a_sentence_fits_that_the_picture_makes_likelier(parts):
    vision = Vision(parts, Vision.Config(information=1.0, cosine=0.0, odds=0.0))
    seen = vision.see(frame(60, 40))
    fits, other = vision.match(seen, ["60 by 40", "mostly gray"])
    assert fits > 0.8
    assert other < 0.5
    assert vision.match(Seen(seen.frame, None), ["60 by 40"]) == [0.5]


def test_a_sentence_fits_that_means_what_the_picture_shows(parts):
    vision = Vision(parts, Vision.Config(information=0.0, cosine=2.0, odds=1.0))
    seen = vision.see(frame(60, 40))
    assert vision.match(seen, ["wide", "high"]) == [
        pytest.approx(1 / (1 + torch.e**-3)),
        pytest.approx(1 / (1 + torch.e**-1)),
    ]


def test_a_question_that_is_too_long_is_refused(parts):
    vision = Vision(parts)
    with pytest.raises(InputError, match="fewer words"):
        vision.answer(vision.see(frame()), "why? " * 2000)


def test_every_pass_goes_where_it_is_told_to(parts):
    ran = []

    def run(function):
        ran.append(function)
        return function()

    vision = Vision(parts, run=run)
    vision.caption(vision.see(frame()))
    assert len(ran) == 1 + 1 + len("Yes.")


def test_over_http(parts):
    with served(parts) as server:

        def look(**body):
            return server.http.post("/v1/vision", json={"images": [url(picture())]} | body)

        (one,) = look().json()["data"]
        assert one["caption"]["text"] == "Yes."
        (one,) = look(questions=["Is it?"], sentences=["60 by 40", "QQQQ"]).json()["data"]
        assert [a["question"] for a in one["answers"]] == ["Is it?"]
        fits, other = (m["probability"] for m in one["matches"])
        assert fits > other
        two = server.http.post("/v1/vision", json={"images": [url(picture())] * 2}).json()["data"]
        assert [one["index"] for one in two] == [0, 1]
        for body, param in (
            ({"images": []}, "images"),
            ({"images": ["data:image/png;base64,AAAA"]}, None),
            ({"sentences": ["  "]}, "sentences"),
        ):
            refused = look(**body)
            assert refused.status_code == 400
            assert param in (None, refused.json()["error"]["param"])


def test_the_commands(parts, monkeypatch, tmp_path):
    from omni.cli import app

    monkeypatch.setattr("omni.vision._vision", lambda model: Vision(parts))
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(picture(60, 40))
    large.write_bytes(picture(77, 88))
    torn = tmp_path / "torn.png"
    torn.write_bytes(picture()[:40])

    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    done = run("caption", small, torn, large)
    assert done.exit_code == 1
    assert [line.split(": ")[-1] for line in done.stdout.splitlines()] == ["Yes.", "Yes."]
    assert "torn.png" in done.stderr
    assert run("vqa", small, "Is it red?").stdout == "Yes. (73%)\n"
    ranked = run("match", large, small, "-t", "60 by 40").stdout.splitlines()
    assert [line.split("/")[-1] for line in ranked[1:]] == ["small.png", "large.png"]
    scores = json.loads(run("match", small, "-t", "60 by 40", "--json").stdout)["scores"]
    assert 0 < scores["60 by 40"] < 1
    assert run("match", small, "-t", " ").exit_code != 0
