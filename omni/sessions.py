"""``omni sessions``: see, export and delete the conversations that are kept on this machine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator, Sized
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import platformdirs
import typer

from omni.errors import InputError, OmniError

if TYPE_CHECKING:
    from runtime.archive import Archive
    from runtime.store import Keep

sessions_app = typer.Typer(
    help="See, export and delete the conversations that are kept here.", no_args_is_help=True
)

KEEP = "30d"
_AGE = re.compile(r"(\d+)\s*([hdw]?)")
_UNITS = {"h": "hours", "": "days", "d": "days", "w": "weeks"}

KeepOption = Annotated[
    str,
    typer.Option(
        "--keep",
        help="How long conversations are kept after their last word: 12h, 30d, 8w, forever, or "
        "nothing (nothing is written).",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where conversations are kept; see `omni sessions list`."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="As `omni sessions list` shows it.")]


def default_directory() -> Path:
    """Where conversations are kept: in ``$OMNI_HOME``, else in the user's data directory."""
    home = os.environ.get("OMNI_HOME")
    base = Path(home).expanduser() if home else Path(platformdirs.user_data_dir("omni"))
    return base / "sessions"


def parse_keep(keep: str, directory: Path | None) -> Keep | None:
    """What ``--keep`` and ``--data-dir`` ask for; None: nothing is kept. Raises `InputError`."""
    from runtime.store import Keep

    if keep == "nothing":
        return None
    directory = (directory or default_directory()).expanduser()
    if keep == "forever":
        return Keep(directory)
    match = _AGE.fullmatch(keep)
    if match is None or not int(match[1]):
        raise InputError(
            f"--keep must be a time such as 12h, 30d or 8w, or 'forever' or 'nothing', not "
            f"{keep!r}",
            param="keep",
        )
    try:
        return Keep(directory, timedelta(**{_UNITS[match[2]]: int(match[1])}))
    except OverflowError:
        raise InputError(f"--keep {keep} is too long; say 'forever'", param="keep") from None


@sessions_app.command("list")
def list_sessions(data_dir: DataDir = None, as_json: _Json = False) -> None:
    """List the conversations, the latest first."""
    with _archive(data_dir, missing_ok=True) as archive:
        found = archive.sessions() if archive is not None else []
    if as_json:
        return typer.echo(json.dumps([asdict(summary) for summary in found], ensure_ascii=False))
    for summary in found:
        typer.echo(
            f"{summary.id}  {_time(summary.updated)}  {summary.items:4} items "
            f"{summary.bytes / 1e6:7.1f} MB  {summary.title}"
        )
    where = (data_dir or default_directory()).expanduser()
    typer.echo(f"{_count(found)} in {where}", err=True)


@sessions_app.command()
def show(session_id: _Id, data_dir: DataDir = None, as_json: _Json = False) -> None:
    """Print what was said."""
    with _archive(data_dir) as archive:
        exported = _export(archive, session_id)
    typer.echo(_json(exported) if as_json else markdown(exported))


@sessions_app.command()
def export(
    session_id: _Id,
    format: Annotated[
        Literal["json", "markdown", "zip"],
        typer.Option(help="zip holds both texts and the media."),
    ] = "json",
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: standard output.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a conversation out of the store."""
    if format == "zip" and out is None and sys.stdout.isatty():
        raise OmniError("a zip is no text; give the file to write with --out")
    with _archive(data_dir) as archive:
        exported = _export(archive, session_id)
        if format == "zip":
            data = _zip(archive, exported)
        else:
            data = (_json(exported) if format == "json" else markdown(exported)).encode() + b"\n"
    if out is None:
        typer.get_binary_stream("stdout").write(data)
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise OmniError(
            f"cannot write {out} ({error.strerror or error}); --out takes a file in a directory "
            "that exists"
        ) from None


@sessions_app.command()
def delete(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="As `omni sessions list` shows.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all conversations.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Delete conversations for good, with their media; nothing of them is left in any file."""
    if everything == bool(ids):
        raise OmniError("give the IDs of the conversations to delete, or --all")
    with _archive(data_dir) as archive:
        known = [summary.id for summary in archive.sessions()]
        chosen = known if everything else list(dict.fromkeys(ids or ()))
        missing = [name for name in chosen if name not in known]
        if missing:
            raise OmniError(
                f"there is no conversation {', '.join(missing)}; nothing was deleted (see `omni "
                "sessions list`)"
            )
        if everything and not yes:
            typer.confirm(f"Delete all of {_count(chosen)} for good?", abort=True)
        gone = archive.delete(chosen)
        typer.echo(f"{_count(gone)} deleted")
        if not archive.scrub():
            raise OmniError(
                "another program reads the database, so that deleted words are still in its log; "
                "they go when that program has ended or the server starts again"
            )


@contextlib.contextmanager
def _archive(directory: Path | None, *, missing_ok: bool = False) -> Iterator[Any]:
    from runtime.archive import DATABASE, Archive

    where = (directory or default_directory()).expanduser()
    if missing_ok and not (where / DATABASE).exists():
        yield None
        return
    with contextlib.closing(Archive(where, create=False)) as archive:
        yield archive


def _export(archive: Archive, session_id: str) -> dict[str, Any]:
    exported = archive.export(session_id)
    if exported is None:
        raise OmniError(f"there is no conversation {session_id}; see `omni sessions list`")
    return exported


def markdown(exported: dict[str, Any]) -> str:
    """A conversation as people read it."""
    files = {medium["name"]: medium["file"] for medium in exported["media"]}
    lines = [f"# {exported['title'] or exported['id']}", ""]
    lines += [f"{_time(exported['created'])} to {_time(exported['updated'])}", ""]
    for item in exported["items"]:
        if item["type"] == "function_call":
            lines += [f"*calls* `{item['name']}({item['arguments']})`", ""]
        elif item["type"] == "function_call_output":
            lines += [f"*result* `{item['output']}`", ""]
        else:
            who = {"user": "You", "assistant": "Omni"}.get(item["role"], item["role"].capitalize())
            said = [_part(part, files) for part in item["parts"]]
            words = " ".join(text for text in said if text)
            cut = " *(cut short)*" if item["status"] == "incomplete" or item["cut"] else ""
            lines += [f"**{who}:** {words}{cut}", ""]
    return "\n".join(lines).rstrip()


def _part(part: dict[str, Any], files: dict[str, str]) -> str:
    link = files.get(part.get("media") or "")
    if part["kind"] == "input_image":
        seen = (part.get("span") or {}).get("text") or "picture"
        return f"![{seen}](media/{link})" if link else f"[{seen}]"
    text = part.get("text") or ""
    return f"{text} [♪](media/{link})" if link else text


def _zip(archive: Archive, exported: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("session.json", _json(exported))
        file.writestr("session.md", markdown(exported))
        for medium in archive.media(exported["id"]):
            if medium.path.exists():
                # Sound and pictures are compressed already.
                file.write(medium.path, f"media/{medium.path.name}", zipfile.ZIP_STORED)
    return buffer.getvalue()


def _json(exported: dict[str, Any]) -> str:
    return json.dumps(exported, ensure_ascii=False, indent=2)


def _count(found: Sized) -> str:
    return f"{len(found)} conversation" + ("" if len(found) == 1 else "s")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
