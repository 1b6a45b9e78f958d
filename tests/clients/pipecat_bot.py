"""A bot of Pipecat that talks with the server by its OpenAI Realtime service, as it is.

Usage: python pipecat_bot.py ws://host:port/v1/realtime QUESTION.pcm

It runs in an environment of its own (pipecat-requirements.txt). QUESTION.pcm is 16-bit mono sound
at 24 kHz. The last line of the output is a JSON report.
"""

import asyncio
import json
import sys
from pathlib import Path

from loguru import logger
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    FunctionCallResultFrame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    LLMSetToolsFrame,
    LLMUpdateSettingsFrame,
    MetricsFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import LLMUsageMetricsData
from pipecat.observers.base_observer import BaseObserver
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import NOT_GIVEN, LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

RATE = 24_000
CAPITALS = ToolsSchema(
    standard_tools=[
        FunctionSchema(
            name="look_up_capital",
            description="Looks up the capital of a country.",
            properties={"country": {"type": "string", "description": "The country."}},
            required=["country"],
        )
    ]
)


class Watcher(BaseObserver):
    """Notes what passes through the pipeline, each frame once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        self.report = {"errors": [], "heard": [], "words": "", "samples": 0, "calls": {}}
        self.report |= {"started": 0, "stopped": 0, "tokens": 0}
        self.answers = 0
        self.changed = asyncio.Condition()

    async def on_push_frame(self, data) -> None:
        frame, report = data.frame, self.report
        if frame.id in self.seen:
            return
        self.seen.add(frame.id)
        match frame:
            case ErrorFrame():
                report["errors"].append(str(frame.error))
            case TranscriptionFrame():
                report["heard"].append(frame.text)
            case TTSTextFrame():
                report["words"] += frame.text
            case TTSAudioRawFrame():
                report["samples"] += len(frame.audio) // 2
            case FunctionCallResultFrame():
                report["calls"][frame.tool_call_id] = [frame.function_name, frame.arguments]
            case UserStartedSpeakingFrame():
                report["started"] += 1
            case UserStoppedSpeakingFrame():
                report["stopped"] += 1
            case MetricsFrame():
                for metric in frame.data:
                    if isinstance(metric, LLMUsageMetricsData):
                        report["tokens"] += metric.value.total_tokens
            case LLMFullResponseEndFrame():
                self.answers += 1
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition) -> None:
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: condition() or self.report["errors"])


def session(tool_choice: str) -> OpenAIRealtimeLLMService.Settings:
    return OpenAIRealtimeLLMService.Settings(
        system_instruction="Answer in one short sentence.",
        session_properties=events.SessionProperties(
            audio=events.AudioConfiguration(
                input=events.AudioInput(
                    transcription=events.InputAudioTranscription(),
                    turn_detection=events.SemanticTurnDetection(),
                    noise_reduction=events.InputAudioNoiseReduction(type="near_field"),
                ),
                output=events.AudioOutput(voice="marin"),
            ),
            tool_choice=tool_choice,
        ),
    )


def settings(tool_choice: str) -> LLMUpdateSettingsFrame:
    return LLMUpdateSettingsFrame(delta=session(tool_choice))


async def talk(url: str, question: bytes) -> dict:
    watcher = Watcher()
    report = watcher.report
    llm = OpenAIRealtimeLLMService(api_key="none", base_url=url, settings=session("auto"))

    async def look_up_capital(call) -> None:
        # From now on it answers in words again.
        await worker.queue_frames([settings("auto"), LLMSetToolsFrame(NOT_GIVEN)])
        await asyncio.sleep(0.5)
        await call.result_callback({"capital": "Paris"})

    llm.register_function("look_up_capital", look_up_capital)
    context = LLMContext([{"role": "user", "content": "Say hello."}])
    pair = LLMContextAggregatorPair(context)
    worker = PipelineWorker(
        Pipeline([pair.user(), llm, pair.assistant()]),
        params=PipelineParams(
            audio_in_sample_rate=RATE,
            audio_out_sample_rate=RATE,
            enable_metrics=True,
            enable_usage_metrics=True,
        ),
        observers=[watcher],
        enable_rtvi=False,
    )

    async def speak(pcm: bytes) -> None:
        for begin in range(0, len(pcm), RATE // 25):
            frame = InputAudioRawFrame(
                audio=pcm[begin : begin + RATE // 25], sample_rate=RATE, num_channels=1
            )
            await worker.queue_frame(frame)
            await asyncio.sleep(0.018)

    async def converse() -> None:
        await worker.queue_frame(LLMRunFrame())
        await watcher.until(lambda: watcher.answers >= 1 and report["samples"])
        report["greeting"], report["words"] = report["words"], ""
        await worker.queue_frames([LLMSetToolsFrame(CAPITALS), settings("required")])
        speaking = asyncio.create_task(speak(question + bytes(2 * RATE * 20)))
        await watcher.until(lambda: report["calls"])
        await watcher.until(lambda: report["words"])
        speaking.cancel()
        done = watcher.answers
        await watcher.until(lambda: watcher.answers > done)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        await converse()
    except TimeoutError:
        report["errors"].append("waited in vain")
    if report["errors"]:
        await worker.cancel()
    await running
    report["messages"] = [m for m in context.get_messages() if isinstance(m, dict)]
    return report


logger.remove()
logger.add(sys.stderr, level="WARNING")
print(json.dumps(asyncio.run(talk(sys.argv[1], Path(sys.argv[2]).read_bytes()))))
