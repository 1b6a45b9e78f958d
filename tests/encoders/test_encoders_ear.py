"""The audio adapter in use: what was written is heard again, with times."""

import numpy as np
import pytest
import torch

from encoders.ear import Ear
from omni.adapters.audio import AudioAdapter, save_adapter
from omni.errors import WeightsError

TEXTS = (b" caf", b"\xc3", b"\xa9", b"!")
UNITS = (70, 71, 72, 73)
CARD = {"languages": "en", "llm": "tiny", "licence": "Apache-2.0"}


def write(path):
    """An adapter that hears in every state the unit of its largest feature; the fifth is blank."""
    sizes = {"states": 5, "width": 5, "layers": 0, "heads": 1, "stride": 2}
    adapter = AudioAdapter.Config(units=UNITS, **sizes).build()
    with torch.no_grad():
        adapter.reduce.weight.zero_()
        adapter.reduce.bias.zero_()
        adapter.reduce.weight[:, :, adapter.reduce.kernel_size[0] // 2] = 5 * torch.eye(5)
        adapter.head.weight.copy_(20 * torch.eye(5).roll(1, 0))
        adapter.head.bias.zero_()
    save_adapter(path, adapter, TEXTS, CARD)


def said(*units):
    return np.eye(5, dtype=np.float32)[np.repeat(units, 2)]


def test_what_was_written_is_heard(tmp_path):
    write(tmp_path / "ear.safetensors")
    ear = Ear(tmp_path / "ear.safetensors")
    heard = ear.hear(said(4, 0, 1, 2, 4, 3, 4))
    assert heard.units == [0, 1, 2, 3]
    assert ear.text(heard.units) == " café!"
    assert heard.starts == pytest.approx([0.04, 0.08, 0.12, 0.20])
    assert all(p > 0.9 for p in heard.likely)
    assert ear.languages == {"en"}
    assert ear.card == CARD


def test_half_a_character_is_no_error(tmp_path):
    write(tmp_path / "ear.safetensors")
    assert Ear(tmp_path / "ear.safetensors").text([0, 1]) == " caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("content", [None, b"", b"not a file of tensors"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "ear.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match="no such adapter"):
        Ear(path)


def test_an_adapter_that_does_not_say_its_languages_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(CARD, "languages", "en")
    del CARD["languages"]
    write(tmp_path / "ear.safetensors")
    with pytest.raises(WeightsError, match="languages"):
        Ear(tmp_path / "ear.safetensors")
