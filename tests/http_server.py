"""The real server over tiny parts, for tests of plain HTTP."""

import contextlib
import logging
import threading
import time

import httpx
import openai

from fakes import fake_parts
from runtime.engine import Engine
from runtime.hub import ServerConfig
from runtime.server import Server, create_app, listen


class Served:
    """A running server: its ``url``, its ``engine``, an `httpx.Client` and OpenAI's client."""

    def __init__(self, server: Server, engine: Engine, url: str) -> None:
        """Certificates are not checked: self-made ones are tested by themselves."""
        self.server = server
        self.engine = engine
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30, verify=False)
        self.openai = self.client()

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def until(self, condition, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not in {seconds} s"
            time.sleep(0.01)


@contextlib.contextmanager
def served(parts=None, *, max_sessions: int = 4, ready: bool = True, **config):
    """Serve ``parts``; afterwards nothing was logged as an error and no session is left."""
    settings = ServerConfig(engine=Engine.Config(max_sessions=max_sessions), **config)
    engine = Engine(parts or fake_parts(), settings.engine)
    logged: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: logged.append(logging.Formatter().format(record))
    logging.getLogger().addHandler(handler)
    listening = listen("127.0.0.1", 0)
    server = Server(create_app(settings, lambda: engine), settings, listening)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    scheme = "https" if settings.tls else "http"
    running = Served(server, engine, f"{scheme}://127.0.0.1:{listening.getsockname()[1]}")
    try:
        running.until(lambda: server.started)
        running.until(lambda: not ready or running.http.get("/health").status_code == 200)
        yield running
        running.until(lambda: engine.sessions == 0)
    finally:
        running.http.close()
        running.openai.close()
        server.should_exit = True
        thread.join(20)
        logging.getLogger().removeHandler(handler)
    assert not thread.is_alive(), "the server did not stop"
    assert not logged, logged
