"""Keys, origins, models, figures and the page of the API, over tiny parts."""

import http.client
import json
import re
import threading

import openai
import pytest
import websockets.sync.client
from http_server import served
from websockets.exceptions import InvalidStatus

from fakes import fake_parts
from runtime.engine import Engine


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


@pytest.fixture(scope="module")
def locked():
    with served(api_keys=("first-key", "second-key")) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def connect(server, path: str = "/v1/realtime", **options):
    url = server.url.replace("http", "ws") + path
    return websockets.sync.client.connect(url, proxy=None, **options)


def metric(server, name: str, **headers) -> float:
    """The sum of all samples whose name and labels begin so."""
    text = server.http.get("/metrics", **headers).text
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)
    )


# Keys


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/openapi.json"])
def test_with_keys_nothing_is_told_without_one(locked, path):
    for headers in ({}, bearer("wrong"), {"Authorization": "Basic first-key"}):
        refused = locked.http.get(path, headers=headers)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"
    for key in ("first-key", "second-key"):
        assert locked.http.get(path, headers=bearer(key)).status_code == 200


def test_refusals_are_counted():
    with served(api_keys=("key",)) as server:
        server.http.get("/v1/models")
        counted = 'omni_http_requests_total{method="GET",route="refused",status="401"}'
        assert metric(server, counted, headers=bearer("key")) == 1
        counted = 'omni_errors_total{code="invalid_api_key"}'
        assert metric(server, counted, headers=bearer("key")) == 1


def test_health_needs_no_key(locked):
    assert locked.http.get("/health").json()["status"] == "ready"


def test_openais_client_meets_the_errors_it_knows(locked):
    with pytest.raises(openai.AuthenticationError):
        locked.openai.models.list()
    assert "omni" in [model.id for model in locked.client("first-key").models.list()]


def test_a_socket_needs_a_key_in_its_header_or_its_subprotocol(locked):
    for options in ({}, {"subprotocols": ["realtime", "openai-insecure-api-key.wrong"]}):
        with pytest.raises(InvalidStatus) as refused:
            connect(locked, **options)
        assert refused.value.response.status_code == 401
        body = json.loads(refused.value.response.body)
        assert body["error"]["code"] == "invalid_api_key"
    for options in (
        {"additional_headers": bearer("first-key")},
        {"subprotocols": ["realtime", "openai-insecure-api-key.second-key"]},
    ):
        with connect(locked, **options) as socket:
            assert json.loads(socket.recv())["type"] == "session.created"
            if "subprotocols" in options:
                assert socket.subprotocol == "realtime"


def test_a_client_secret_opens_a_session_with_its_settings(locked):
    made = locked.client("first-key").realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={"type": "realtime", "instructions": "Speak French."},
    )
    assert made.value.startswith("ek_")
    assert made.session.instructions == "Speak French."
    with connect(locked, additional_headers=bearer(made.value)) as socket:
        seen = json.loads(socket.recv())
        while seen.get("session", {}).get("instructions") != "Speak French.":
            seen = json.loads(socket.recv(timeout=5))
    refused = locked.http.get("/v1/models", headers=bearer(made.value))
    assert refused.status_code == 401
    assert "/v1/realtime" in refused.json()["error"]["message"]


def test_a_client_secret_works_without_keys_too(server):
    made = server.openai.realtime.client_secrets.create(session={"type": "realtime"})
    with connect(server, additional_headers=bearer(made.value)) as socket:
        assert json.loads(socket.recv())["type"] == "session.created"
    with pytest.raises(InvalidStatus):
        connect(server, additional_headers=bearer("ek_unknown"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"expires_after": {"seconds": 5}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, "expires_after.anchor"),
        ({"session": {"type": "transcription"}}, "session.type"),
        ({"session": {"type": "realtime", "colour": "red"}}, "session.colour"),
        ({"session": {"type": "realtime", "temperature": 9}}, "session.temperature"),
        ({"seconds": 5}, "seconds"),
    ],
)
def test_a_secret_is_not_made_of_wrong_settings(server, body, param):
    refused = server.http.post("/v1/realtime/client_secrets", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


# Origins


def test_foreign_pages_may_neither_read_nor_drive_the_server(server):
    for origin in ("https://elsewhere.example", "null", "http://["):
        headers = {"Origin": origin}
        for answer in (
            server.http.get("/v1/models", headers=headers),
            server.http.post(
                "/v1/chat/completions",
                content="{}",
                headers={**headers, "Content-Type": "text/plain"},
            ),
        ):
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
    own = server.http.get("/v1/models", headers={"Origin": server.url})
    assert own.status_code == 200


def test_allowed_pages_may_use_it_and_are_told_so():
    origin = "https://allowed.example"
    with served(origins=(origin,), api_keys=("key",)) as server:
        asked = server.http.options(
            "/v1/chat/completions",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type",
            },
        )
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == origin
        refused = server.http.get("/v1/models", headers={"Origin": origin})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
            401,
            origin,
        )


# Models, figures, the page


def test_models_can_be_listed_and_looked_up(server):
    names = [model.id for model in server.openai.models.list()]
    assert {"omni", "scripted", "whisper-base"} <= set(names)
    for name in names:
        assert server.openai.models.retrieve(name).owned_by == "omni"
    with pytest.raises(openai.NotFoundError):
        server.openai.models.retrieve("llama")


def test_figures_count_answers_tokens_requests_and_errors():
    with served() as server:
        messages = [{"role": "user", "content": "hello"}]
        server.openai.chat.completions.create(model="omni", messages=messages)
        with pytest.raises(openai.BadRequestError):
            server.openai.chat.completions.create(model="omni", messages=messages, n=2)
        server.openai.audio.speech.create(model="omni", voice="alloy", input="x" * 100)
        assert metric(server, 'omni_responses_total{status="completed"}') == 1
        assert metric(server, 'omni_tokens_total{kind="output"}') == len("You said hello.")
        assert metric(server, 'omni_stage_seconds_count{stage="first_token"}') == 1
        assert metric(server, 'omni_errors_total{code="unsupported"}') == 1
        route = 'omni_http_requests_total{method="POST",route="/v1/chat/completions",status='
        assert metric(server, f'{route}"200"') == 1
        assert metric(server, f'{route}"400"') == 1
        assert metric(server, 'omni_audio_seconds_total{way="out"}') == pytest.approx(1.0)
        with connect(server) as socket:
            socket.recv()
            assert metric(server, "omni_sessions_open ") == 1
        assert metric(server, "omni_sessions_total") == 1


def test_spoken_turns_are_timed():
    with served() as server, connect(server) as socket:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
        socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        socket.send(json.dumps({"type": "response.create"}))
        while json.loads(socket.recv(timeout=10))["type"] != "response.done":
            pass
        assert metric(server, 'omni_stage_seconds_count{stage="first_audio"}') == 1


def test_the_page_of_the_api_loads_nothing_from_elsewhere_and_its_examples_work(server):
    page = server.http.get("/docs").text
    assert "/v1/chat/completions" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    paths = server.http.get("/openapi.json").json()["paths"]
    for path in ("/v1/chat/completions", "/v1/audio/speech", "/v1/realtime/client_secrets"):
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        assert content["examples"]
        for example in content["examples"].values():
            if "你好" in json.dumps(example, ensure_ascii=False) or "tools" in example["value"]:
                continue  # the tiny parts know neither Chinese nor tools
            assert server.http.post(path, json=example["value"]).status_code == 200, example


def test_an_unknown_route_is_answered_in_the_same_shape(server):
    missing = server.http.get("/v1/nothing")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"
    wrong = server.http.get("/v1/chat/completions")
    assert wrong.status_code == 405
    assert wrong.json()["error"]["code"] == "method_not_allowed"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_while_the_models_load_requests_are_told_to_come_back(monkeypatch):
    gate = threading.Event()
    start = Engine.start
    monkeypatch.setattr(Engine, "start", lambda self, **o: gate.wait(10) and start(self, **o))
    with served(fake_parts(), ready=False) as server:
        with pytest.raises(openai.InternalServerError) as refused:
            server.openai.models.list()
        assert refused.value.status_code == 503
        assert refused.value.code == "not_ready"
        gate.set()
        server.until(lambda: server.http.get("/health").status_code == 200)
        assert server.openai.models.list().data
