"""What the server counts and times, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

CONTENT_TYPE: str = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_FACTORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 5.0)
_STAGES = ("turn_end", "transcript", "first_token", "first_clause", "first_audio")


class Metrics:
    """The figures of one server; ``open_sessions`` is asked when they are read."""

    def __init__(self, open_sessions: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        Gauge("omni_sessions_open", "Sessions that are open", registry=r).set_function(
            open_sessions
        )
        self._sessions = Counter("omni_sessions", "Realtime sessions begun", registry=r)
        self._responses = Counter("omni_responses", "Answers by status", ["status"], registry=r)
        self._tokens = Counter("omni_tokens", "Tokens of answers", ["kind"], registry=r)
        self._stages = Histogram(
            "omni_stage_seconds",
            "From the end of speech, or from the request, to each stage of an answer",
            ["stage"],
            buckets=_SECONDS,
            registry=r,
        )
        self._errors = Counter("omni_errors", "Errors told to clients", ["code"], registry=r)
        self._http = Counter(
            "omni_http_requests", "HTTP requests", ["method", "route", "status"], registry=r
        )
        self._http_seconds = Histogram(
            "omni_http_request_seconds",
            "HTTP requests to the end of their answer",
            ["route"],
            buckets=_SECONDS,
            registry=r,
        )
        self._audio = Counter(
            "omni_audio_seconds", "Sound that was heard (in) and made (out)", ["way"], registry=r
        )
        self._factor = Histogram(
            "omni_real_time_factor",
            "Seconds of work for a second of sound",
            ["work"],
            buckets=_FACTORS,
            registry=r,
        )

    def session(self) -> None:
        """A realtime session has begun."""
        self._sessions.inc()

    def response_done(self, response: Mapping[str, Any]) -> None:
        """Count an answer; ``response`` is that of ``response.done``, timings in milliseconds."""
        usage = response.get("usage") or {}
        details = usage.get("input_token_details") or {}
        self.answered(
            str(response.get("status")),
            tokens_in=usage.get("input_tokens") or 0,
            tokens_out=usage.get("output_tokens") or 0,
            cached=details.get("cached_tokens") or 0,
            stages={k: v / 1000 for k, v in (response.get("timings") or {}).items()},
        )

    def answered(
        self,
        status: str,
        *,
        tokens_in: int,
        tokens_out: int,
        cached: int,
        stages: Mapping[str, float],
    ) -> None:
        """Count an answer; ``stages`` are in seconds."""
        self._responses.labels(status).inc()
        for kind, count in (("input", tokens_in), ("output", tokens_out), ("cached", cached)):
            self._tokens.labels(kind).inc(count)
        for stage in _STAGES:
            if (seconds := stages.get(stage)) is not None:
                self._stages.labels(stage).observe(max(0.0, seconds))

    def error(self, code: str | None) -> None:
        """Count an error that a client was told."""
        self._errors.labels(code or "unknown").inc()

    def http(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the template, so that there are few of them."""
        self._http.labels(method, route, str(status)).inc()
        self._http_seconds.labels(route).observe(seconds)

    def heard(self, seconds: float, took: float | None = None) -> None:
        """Sound came in; ``took`` seconds of work made a transcript of it."""
        self._audio.labels("in").inc(seconds)
        if took is not None and seconds > 0:
            self._factor.labels("transcription").observe(took / seconds)

    def spoke(self, seconds: float, took: float | None = None) -> None:
        """Sound was made, in ``took`` seconds of work."""
        self._audio.labels("out").inc(seconds)
        if took is not None and seconds > 0:
            self._factor.labels("speech").observe(took / seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
