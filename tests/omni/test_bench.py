import json
import subprocess
import sys

import numpy as np
import pytest

from omni.bench.voice import Turn, questions, render, summary


def turn(seconds: float) -> Turn:
    stages = {"turn decision": seconds, "first audible": seconds + 0.5}
    return Turn("What is this?", "what is that", "A cat.", 0.2, stages, 30.0)


def test_the_recorded_questions_are_at_least_twenty_and_end_with_speech():
    clips = questions()
    assert len(clips) >= 20
    for text, clip in clips:
        assert text
        assert np.abs(clip.pcm[-clip.sample_rate // 20 :]).max() > 0.001


def test_a_summary_has_the_median_and_the_95th_percentile_of_each_stage():
    result = summary([turn(s / 10) for s in range(1, 11)])
    assert result["stages_s"]["turn decision"] == {"median": 0.55, "p95": 0.955}
    assert result["word_error_rate"] == pytest.approx(1 / 3, abs=1e-4)
    table = render(result | {"model": "m", "server": {}})
    assert "first audible" in table
    assert "33.3%" in table


@pytest.mark.e2e
def test_the_command_times_every_stage_of_a_real_server(server):
    command = [sys.executable, "-m", "omni.cli", "bench", "voice", "--url", server]
    ran = subprocess.run(
        [*command, "--count", "2", "--json"], capture_output=True, text=True, check=True
    )
    result = json.loads(ran.stdout.splitlines()[-1])
    order = ["silence", "turn decision", "first token", "first audio"]
    medians = [result["stages_s"][stage]["median"] for stage in order]
    assert medians == sorted(medians)
    assert result["questions"] == 2
    assert result["model"] == "qwen2.5-coder-0.5b"
