"""The ``omni`` command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import contextlib
import json as json_module
import logging
import sys
import threading
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import omni
from omni.batch.command import batch
from omni.data.commands import data_app
from omni.dialogues.command import play_dialogues
from omni.draw.command import draw_app
from omni.errors import OmniError
from omni.evaluate.command import evaluate
from omni.search.commands import index_app
from omni.sessions import KEEP, DataDir, KeepOption, parse_keep, sessions_app
from omni.train.commands import train
from omni.vision import caption, match, vqa
from omni.weights import DEFAULT_MODEL
from omni.weights.commands import models_app

if TYPE_CHECKING:
    from runtime.assembly import Assembly
    from runtime.hub import ServerConfig

app = typer.Typer(
    name="omni",
    help="An assistant that you talk to and show things to, on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
bench_app = typer.Typer(help="Measure the assistant on this machine.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(draw_app, name="draw")
app.add_typer(index_app, name="index")
app.add_typer(sessions_app, name="sessions")
app.command()(batch)
app.command()(train)
app.command("eval")(evaluate)
app.command()(caption)
app.command()(vqa)
app.command()(match)
app.command("test")(play_dialogues)

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="The language model: a name from `omni models list`, a local directory, or a hub id "
        "of a causal language model of transformers.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Quantization = Annotated[
    Literal["auto", "fp16", "int8", "bf16", "fp32"],
    typer.Option(help="Of the weights: auto (the fastest here), fp16, int8, bf16 or fp32."),
]
Context = Annotated[int, typer.Option(min=512, help="Tokens that a conversation may hold.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads for each model; default: the cores.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for the whole network.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")]
Sessions = Annotated[int, typer.Option(min=1, help="Conversations at one time.")]
Origins = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", help="A web origin whose pages may connect too (repeatable)."),
]
ApiKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key",
        help="Serve only those who send this key (repeatable; also the environment's "
        "OMNI_API_KEYS, separated by commas).",
    ),
]
ApiKeyFile = Annotated[Path | None, typer.Option(help="A file with API keys, one a line.")]
MediaHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-media-host",
        help="A host from which pictures and clips at http(s) addresses are fetched (repeatable).",
    ),
]
Pictures = Annotated[
    str | None,
    typer.Option(
        help="What draws: a directory of 'omni draw train', or a text-to-image pipeline of "
        "diffusers by directory or hub id; default: what is installed."
    ),
]
ImageBridge = Annotated[
    Literal["auto", "adapter", "text"],
    typer.Option(
        help="How the language model reads pictures: by the trained adapter, or by labels alone; "
        "auto: by the adapter where it was measured to be better."
    ),
]
Ear = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="An audio adapter of `omni train ear`: hears English without Whisper's decoder, when "
        "the session says that English is spoken or it is detected. None ships (docs/training.md).",
    ),
]
Ssl = Annotated[
    bool,
    typer.Option(
        "--ssl",
        help="Serve https with a self-made certificate, so that browsers on other machines give "
        "the page their microphone and camera; they warn once.",
    ),
]
SslCert = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Serve https with your own one.")
]
SslKey = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="The key of --ssl-cert.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
IndexDir = Annotated[
    Path | None,
    typer.Option("--index", help="An index of `omni index build`, in which users can search."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(omni.__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    model: Model = DEFAULT_MODEL,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    device: Device = "auto",
    quantization: Quantization = "auto",
    context: Context = 4096,
    threads: Threads = None,
    max_sessions: Sessions = 4,
    pictures: Pictures = None,
    image_bridge: ImageBridge = "auto",
    ear: Ear = None,
    allow_origin: Origins = None,
    index: IndexDir = None,
    keep: KeepOption = KEEP,
    data_dir: DataDir = None,
    ssl: Ssl = False,
    ssl_cert: SslCert = None,
    ssl_key: SslKey = None,
    verbose: Verbose = False,
) -> None:
    """Talk to the assistant in the browser: fetch the weights, start the server, open the page."""
    assembly, config = _settings(
        model, host, port, device, quantization, context, threads, max_sessions, allow_origin
    )
    assembly = replace(assembly, pictures=pictures, image_bridge=image_bridge, ear=ear)
    config = replace(
        config,
        index=index,
        keep=parse_keep(keep, data_dir),
        tls=_tls(host, ssl, ssl_cert, ssl_key),
    )
    _serve(assembly, config, page=True, browser=browser, verbose=verbose)


@app.command()
def serve(
    model: Model = DEFAULT_MODEL,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    ui: Annotated[bool, typer.Option("--ui", help="Serve the page beside the API.")] = False,
    device: Device = "auto",
    quantization: Quantization = "auto",
    context: Context = 4096,
    threads: Threads = None,
    max_sessions: Sessions = 4,
    pictures: Pictures = None,
    image_bridge: ImageBridge = "auto",
    ear: Ear = None,
    allow_origin: Origins = None,
    api_key: ApiKeys = None,
    api_key_file: ApiKeyFile = None,
    allow_media_host: MediaHosts = None,
    index: IndexDir = None,
    keep: KeepOption = KEEP,
    data_dir: DataDir = None,
    ssl: Ssl = False,
    ssl_cert: SslCert = None,
    ssl_key: SslKey = None,
    verbose: Verbose = False,
) -> None:
    """Serve OpenAI's Realtime protocol and HTTP API at HOST:PORT/v1; /docs describes them."""
    from runtime.auth import read_keys

    assembly, config = _settings(
        model, host, port, device, quantization, context, threads, max_sessions, allow_origin
    )
    assembly = replace(assembly, pictures=pictures, image_bridge=image_bridge, ear=ear)
    config = replace(
        config,
        api_keys=read_keys(api_key or (), api_key_file),
        media_hosts=tuple(allow_media_host or ()),
        index=index,
        keep=parse_keep(keep, data_dir),
        tls=_tls(host, ssl, ssl_cert, ssl_key),
    )
    _serve(assembly, config, page=ui, browser=False, verbose=verbose)


def _settings(
    model: str,
    host: str,
    port: int,
    device: str,
    quantization: Quantization,
    context: int,
    threads: int | None,
    max_sessions: int,
    origins: list[str] | None,
) -> tuple[Assembly, ServerConfig]:
    from runtime.assembly import Assembly
    from runtime.engine import Engine
    from runtime.hub import ServerConfig

    assembly = Assembly(model, device, quantization, context, threads)
    engine = Engine.Config(max_sessions=max_sessions)
    return assembly, ServerConfig(host, port, tuple(origins or ()), engine=engine)


def _tls(
    host: str, self_signed: bool, certificate: Path | None, key: Path | None
) -> tuple[Path, Path] | None:
    if (certificate is None) != (key is None):
        raise OmniError("--ssl-cert and --ssl-key belong together; give both, or --ssl alone")
    if certificate is not None and key is not None:
        return certificate, key
    if not self_signed:
        return None
    from omni.weights.store import home
    from runtime.tls import self_made

    return self_made(home() / "tls", host)


def _serve(
    assembly: Assembly, config: ServerConfig, *, page: bool, browser: bool, verbose: bool
) -> None:
    from omni.weights import ensure_all
    from runtime.guard import LOOPBACK
    from runtime.server import Server, build_engine, create_app, listen

    _log(verbose)
    if config.host not in LOOPBACK and not config.api_keys:
        typer.echo(
            f"Warning: everybody who reaches {config.host}:{config.port} may use this server; "
            "`omni serve --api-key KEY` asks for a key.",
            err=True,
        )
    try:
        listening = listen(config.host, config.port)
    except OSError as error:
        raise OmniError(
            f"cannot listen on {config.host}:{config.port} ({error.strerror}); choose another "
            "address with --host or another port with --port"
        ) from None
    port = listening.getsockname()[1]
    ensure_all(assembly.weights)
    application = create_app(config, build_engine(assembly, config))
    if page:
        from demo.app import mount

        application = mount(application)
    server = Server(application, config, listening)
    from runtime.tls import outward_address

    host = config.host
    if host in ("0.0.0.0", "::"):
        host = outward_address() or "localhost"
    url = f"{'https' if config.tls else 'http'}://{host}:{port}"
    typer.echo("Loading the models …", err=True)
    watcher = threading.Thread(
        target=_announce, args=(server, application, url, page, browser), daemon=True
    )
    watcher.start()
    server.serve_forever()
    hub = application.state.hub
    if hub.problem is not None:
        raise OmniError(f"the server could not be started: {hub.problem}")


def _announce(server: Any, application: Any, url: str, page: bool, browser: bool) -> None:
    import time

    while not server.should_exit:
        hub = getattr(application.state, "hub", None)
        if hub is not None and hub.problem is not None:
            server.should_exit = True
        if hub is not None and hub.state == "ready":
            what = url if page else f"{url.replace('http', 'ws', 1)}/v1/realtime"
            typer.echo(f"Ready: {what}  (Ctrl-C stops)", err=True)
            if page and browser:
                webbrowser.open(url)
            return
        time.sleep(0.1)


@app.command()
def ask(
    question: Annotated[str | None, typer.Argument(help="The question, in any language.")] = None,
    audio: Annotated[Path | None, typer.Option(help="A recording with or of the question.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture (repeatable).")] = None,
    video: Annotated[Path | None, typer.Option(help="A clip.")] = None,
    speak: Annotated[
        Path | None, typer.Option(metavar="OUT.wav", help="Write the spoken answer here.")
    ] = None,
    draw: Annotated[
        Path, typer.Option(metavar="OUT.png", help="Where a picture goes that was asked for.")
    ] = Path("out.png"),
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    quantization: Quantization = "auto",
    context: Context = 4096,
    threads: Threads = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: always the same.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="For a temperature above 0.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Ask one question about text, sound, pictures or a clip, without a server."""
    _log(verbose)
    given = [p for p in (audio, video, *(image or [])) if p is not None]
    for path in given:
        if not path.is_file():
            raise OmniError(f"there is no file {path}")
    if not question and not given:
        raise OmniError("there is nothing to answer: give a question, --audio, --image or --video")
    for option, file in (("--speak", speak), ("--draw", draw)):
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            raise OmniError(
                f"cannot write to {file}; {option} takes a file in a directory that exists"
            )
    from rich.console import Console

    from encoders.media import write_wav
    from omni.types import Sampling
    from omni.weights import ensure_all
    from runtime.assembly import Assembly
    from runtime.local import Assistant, check_files

    check_files(audio, image or (), video)
    assembly = Assembly(model, device, quantization, context, threads)
    ensure_all(assembly.weights)
    with contextlib.ExitStack() as stack:
        with Console(stderr=True).status("Loading the models …"):
            assistant = stack.enter_context(Assistant(assembly))
        answer = assistant.ask(
            question,
            audio=audio,
            images=image or (),
            video=video,
            speak=speak is not None,
            sampling=Sampling(temperature=temperature, seed=seed),
            on_text=None if json else lambda text: typer.echo(text, nl=False),
        )
    if speak is not None and answer.audio is not None:
        write_wav(speak, answer.audio)
    if answer.picture is not None:
        try:
            draw.write_bytes(answer.picture)
        except OSError as error:
            raise OmniError(
                f"cannot write {draw}: {error.strerror or error}; choose another with --draw"
            ) from None
        typer.echo(f"\n{draw}", nl=False, err=json)
    for warning in answer.warnings:
        typer.echo(f"\nNote: {warning}", err=True)
    if not json:
        typer.echo("")
        return
    _print_json(
        {
            "answer": answer.text,
            "transcript": answer.transcript,
            "seen": list(answer.seen),
            "speech": str(speak) if answer.audio is not None else None,
            "picture": str(draw) if answer.picture is not None else None,
            "timings": {k: round(v, 3) for k, v in answer.timings.items()},
            "usage": {
                "input_tokens": answer.usage.input_tokens,
                "output_tokens": answer.usage.output_tokens,
            },
            "model": assembly.model,
        }
    )


@app.command()
def doctor(json: Json = False) -> None:
    """Say what works on this machine and what is missing."""
    from omni.doctor import examine

    report = examine()
    for check in report:
        mark = {"ok": "✓", "note": "·", "problem": "✗"}[check.state]
        typer.echo(f" {mark} {check.name}: {check.finding}")
    problems = [check for check in report if check.state == "problem"]
    typer.echo("Everything that is needed works." if not problems else "Something is missing.")
    if json:
        _print_json(
            {
                "ok": not problems,
                "checks": [
                    {"name": c.name, "state": c.state, "finding": c.finding} for c in report
                ],
            }
        )
    if problems:
        raise typer.Exit(1)


@bench_app.command("voice")
def bench_voice(
    url: Annotated[
        str | None, typer.Option(help="A running server; default: one is started for the run.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    quantization: Quantization = "auto",
    count: Annotated[
        int, typer.Option(min=1, max=24, help="How many of the recorded questions to play.")
    ] = 24,
    json: Json = False,
) -> None:
    """Play recorded questions in real time and time every stage from the end of speech."""
    from omni.bench.voice import render, run

    result = run(url=url, model=model, quantization=quantization, count=count)
    typer.echo(render(result))
    if json:
        _print_json(result)


@bench_app.command("transcribe")
def bench_transcribe(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="Recordings, each with its words in a .txt beside it where they are known; "
            "default: sentences that are spoken on the spot.",
        ),
    ] = None,
    against: Annotated[
        bool, typer.Option("--against", help="Also run faster-whisper and openai-whisper.")
    ] = False,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Of the longest of the spoken recordings.")
    ] = 10.0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Transcribe recordings one at a time and in batches, and compare speed and word errors."""
    from omni.bench.transcribe import cores, render, run

    result = run(files or (), against=against, minutes=minutes, threads=threads or cores())
    typer.echo(render(result))
    if json:
        _print_json(result)


@bench_app.command("search")
def bench_search(
    items: Annotated[str, typer.Option(help="Numbers of items.")] = "1000,10000,100000",
    requests: Annotated[int, typer.Option(min=20, help="Requests for each.")] = 100,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT.svg", help="Draw latency against items here.")
    ] = None,
    json: Json = False,
) -> None:
    """Time searches in indices of made-up items around real vectors."""
    from omni.bench import search

    try:
        counts = sorted(int(count) for count in items.split(","))
    except ValueError:
        raise OmniError(f"--items is {items!r}; give numbers, like 1000,10000") from None
    if counts[0] < 1:
        raise OmniError(f"--items is {items!r}; every number has to be at least 1")
    result = search.run(counts, requests, lambda text: typer.echo(text, err=True))
    typer.echo(search.render(result))
    if plot is not None:
        plot.write_text(search.plot(result), "utf-8")
    if json:
        _print_json(result)


def _print_json(value: object) -> None:
    typer.echo(json_module.dumps(value, ensure_ascii=False))


def _log(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def main() -> None:
    """Run the command; errors that we raise on purpose become one clear line."""
    try:
        app()
    except OmniError as error:
        typer.echo(f"omni: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
