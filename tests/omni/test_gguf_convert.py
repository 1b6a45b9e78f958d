"""The conversion against transformers' own GGUF loader, on tiny models and on the real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from omni.errors import InputError, WeightsError
from omni.llm import gguf_convert
from omni.llm.gguf_convert import convert_gguf, converted, undo_rope_order
from omni.weights.progress import SilentProgress

TEXTS = [
    "The quick brown fox jumps over the lazy dog, doesn't it? I'LL SEE.",
    "今天天气很好，我们去公园散步吧。",
    "¿Dónde está la biblioteca? Mañana será otro día; ¡qué lástima!",
    "こんにちは、世界。東京タワーはどこですか？",
    "नमस्ते, आप कैसे हैं? मुझे हिंदी में बात करनी है।",
    "👩‍👩‍👧‍👦 🎉 café naïve 😀",
    "def f(x):\n\tif x > 3:\n        return x**2  # ok\n\n\n",
    "1234567 3.14159 2024-01-02 四",
    "  lead   mid  \n\n  trail   ",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>x",
    "a\r\nb\u00a0c\u3000d",
    "",
]
CHAT = [
    {"role": "system", "content": "You are Omni."},
    {"role": "user", "content": "Hi, 42?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "再见"},
]
SILENT = SilentProgress()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads collapse on a small machine that does something else at the same time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_tiny(path: Path, architecture: str, *, tied: bool = False, **changes: Any) -> Path:
    """Write a seeded two-layer model with a byte vocabulary, two merges and three specials."""
    width, heads, kv_heads, inner, layers = 64, 4, 2, 96, 2
    alphabet = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    alphabet += [chr(256 + i) for i in range(256 - len(alphabet))]
    tokens = [*alphabet, "he", "hel", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD261]"]
    kinds = [1] * 258 + [3, 3, 3, 5]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "qwen2" if architecture == "qwen2" else "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["h e", "he l"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(260)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")

    random = np.random.default_rng(changes.get("seed", 0))

    def add(name: str, *shape: int) -> None:
        values = random.normal(0, 0.3, shape).astype(np.float32)
        if name in changes.get("huge", ()):
            values[0] = 1e6
        if len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)

    add("token_embd.weight", len(tokens), width)
    add("output_norm.weight", width)
    if not tied:
        add("output.weight", len(tokens), width)
    for i in range(layers):
        add(f"blk.{i}.attn_norm.weight", width)
        add(f"blk.{i}.ffn_norm.weight", width)
        for part, rows in ("q", width), ("k", width * kv_heads // heads), ("v", 32):
            add(f"blk.{i}.attn_{part}.weight", rows, width)
            if architecture == "qwen2":
                add(f"blk.{i}.attn_{part}.bias", rows)
        add(f"blk.{i}.attn_output.weight", width, width)
        add(f"blk.{i}.ffn_gate.weight", inner, width)
        add(f"blk.{i}.ffn_up.weight", inner, width)
        add(f"blk.{i}.ffn_down.weight", width, inner)
    for name in changes.get("extra", ()):
        add(name, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def assert_same_model(source: Path, directory: Path, texts: list[str]) -> None:
    """Compare every parameter and the logits with what transformers reads from the GGUF file."""
    own = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    reference = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    ).eval()
    expected = dict(reference.named_parameters())
    found = dict(own.named_parameters())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # half a unit in the last place of float16, normal and subnormal
        limit = value.detach().abs() * 2**-11 + 2**-25
        assert bool(((found[name] - value).abs() <= limit).all()), name
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            want, got = reference(ids).logits, own(ids).logits
        error = float((want - got).abs().max())
        assert error < 0.02 * float(want.std())
        best_two = want.topk(2).values
        clear = best_two[..., 0] - best_two[..., 1] > 2 * error
        assert float(clear.float().mean()) > 0.8
        assert torch.equal(want.argmax(-1)[clear], got.argmax(-1)[clear])


def assert_same_tokenizer(source: Path, directory: Path) -> None:
    own = AutoTokenizer.from_pretrained(directory)
    # Some tokenizer classes of transformers rebuild parts of what the file says: read it bare too.
    bare = Tokenizer.from_file(str(directory / "tokenizer.json"))
    reference = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    for text in TEXTS:
        ids = own(text)["input_ids"]
        assert bare.encode(text).ids == ids, text
        assert bare.decode(ids, skip_special_tokens=False) == text
        assert ids == reference(text)["input_ids"], text
        assert own.decode(ids) == reference.decode(ids) == text
    for prompt in (True, False):
        options = {"add_generation_prompt": prompt, "tokenize": False}
        rendered = own.apply_chat_template(CHAT, **options)
        assert rendered == reference.apply_chat_template(CHAT, **options)
        assert "<|im_start|>user\nHi, 42?<|im_end|>" in rendered
    for role in ("bos", "eos", "pad"):
        assert getattr(own, f"{role}_token_id") == getattr(reference, f"{role}_token_id")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_a_tiny_model_is_the_one_that_transformers_reads(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    source = write_tiny(tmp_path / "tiny.gguf", architecture, tied=tied)
    convert_gguf(source, tmp_path / "out", SILENT)
    assert_same_model(source, tmp_path / "out", ["hello", "the rest 12"])
    assert ("lm_head.weight" in load_file(tmp_path / "out/model.safetensors")) is not tied


def test_the_directory_has_all_that_a_start_needs(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "tiny.gguf", "qwen2")
    convert_gguf(source, tmp_path / "out", SILENT)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("hel<|im_end|>")["input_ids"] == [257, 260]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x"
    assert len(tokenizer) == 261  # the padding row is no token
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert generation["eos_token_id"] == [260, 258]  # end of the turn, end of the text
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5
    assert config["vocab_size"] == 262


def test_text_is_composed_before_qwen_reads_it_as_upstream_does(tmp_path: Path) -> None:
    convert_gguf(write_tiny(tmp_path / "tiny.gguf", "qwen2"), tmp_path / "out", SILENT)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert tokenizer.encode("cafe\u0301").ids == tokenizer.encode("caf\u00e9").ids


def test_every_digit_is_split_off_for_smollm_as_upstream_does(tmp_path: Path) -> None:
    convert_gguf(write_tiny(tmp_path / "tiny.gguf", "llama"), tmp_path / "out", SILENT)
    split = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).pre_tokenizer
    assert [piece for piece, _ in split.pre_tokenize_str("a 42½")] == ["a", "Ġ", "4", "2", "Â½"]


def test_a_conversion_is_done_once_and_again_when_the_source_changed(tmp_path: Path) -> None:
    source, out = write_tiny(tmp_path / "tiny.gguf", "llama"), tmp_path / "out"
    convert_gguf(source, out, SILENT)
    first = (out / "model.safetensors").stat()
    convert_gguf(source, out, SILENT)
    assert (out / "model.safetensors").stat().st_mtime_ns == first.st_mtime_ns
    before = load_file(out / "model.safetensors")
    write_tiny(source, "llama", seed=1)
    convert_gguf(source, out, SILENT)
    after = load_file(out / "model.safetensors")
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.lock", "tiny.gguf"]


def test_a_conversion_that_is_interrupted_leaves_the_old_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_tiny(tmp_path / "tiny.gguf", "llama"), tmp_path / "out"
    convert_gguf(source, out, SILENT)
    write_tiny(source, "llama", seed=1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SilentProgress, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_gguf(source, out, SilentProgress())
    assert (out / "model.safetensors").exists()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("gemma", {}, "type 'gemma'; only qwen2, llama"),
        ("llama", {"pre": "tekken"}, "splitting 'tekken'"),
        ("llama", {"extra": ["rope_freqs.weight"]}, r"tensor 'rope_freqs\.weight'"),
        ("llama", {"huge": ["blk.1.ffn_up.weight"]}, r"ffn_up\.weight holds .*float16"),
    ],
)
def test_what_would_convert_wrongly_is_refused(
    tmp_path: Path, architecture: str, changes: dict[str, Any], message: str
) -> None:
    source = write_tiny(tmp_path / "tiny.gguf", architecture, **changes)
    with pytest.raises(WeightsError, match=message):
        convert_gguf(source, tmp_path / "out", SILENT)
    assert not (tmp_path / "out").exists()


def test_large_tensors_are_read_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tiny(tmp_path / "tiny.gguf", "llama")
    convert_gguf(source, tmp_path / "whole", SILENT)
    monkeypatch.setattr(gguf_convert, "SLICE_VALUES", 5 * 64)
    convert_gguf(source, tmp_path / "sliced", SILENT)
    whole, sliced = (tmp_path / name / "model.safetensors" for name in ("whole", "sliced"))
    assert whole.read_bytes() == sliced.read_bytes()


def test_the_rope_order_is_undone() -> None:
    # llama.cpp's order of one head of six rows: pairs (i, i + 3) side by side
    interleaved = np.array([[0], [3], [1], [4], [2], [5]], dtype=np.float32)
    assert undo_rope_order(interleaved, 1)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    two = np.concatenate([interleaved, interleaved + 6])
    assert undo_rope_order(two, 2)[:, 0].tolist() == list(range(12))


def test_a_file_of_the_users_own_is_converted_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "home"))
    source = write_tiny(tmp_path / "mine.gguf", "llama")
    out = converted(source, SILENT)
    assert out.parent == tmp_path / "home/converted"
    assert out.name.startswith("mine-")
    with pytest.raises(InputError, match="other"):
        converted(tmp_path / "other.gguf", SILENT)


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_the_real_tokenizer_is_the_one_that_transformers_reads(name: str) -> None:
    from omni.weights import ensure

    assert_same_tokenizer(ensure(name), converted(name))


@pytest.mark.e2e
def test_the_real_model_computes_what_transformers_computes() -> None:
    from omni.weights import ensure

    name = "smollm2-135m"
    assert_same_model(ensure(name), converted(name), TEXTS[:5])
