"""`facefeat serve`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from facefeat_jax.runs._about import is_exported
from facefeat_jax.serving._defaults import BATCH_SIZE, MAX_UPLOAD_MIB, QUEUE
from facefeat_jax.system.errors import UserError
from facefeat_jax.system.main import end_at_once
from facefeat_jax.system.progress import say

if TYPE_CHECKING:
    from facefeat_jax.serving._gate import Gate

TOKEN = "FACEFEAT_TOKEN"
_LARGEST = 256  # MiB: larger files are read by no command


@dataclass(frozen=True)
class Arguments:
    """Answers over HTTP, with a page for people at / and the interface at /docs. Needs the extra `serve`."""

    GROUPS: ClassVar = {
        "Who may ask": ("host", "port", "allow_host", "token", "token_file"),
        "Limits": ("queue", "max_upload"),
    }

    run: tyro.conf.Positional[Path]
    """Folder of the run, or an .onnx file that `facefeat export` wrote: ONNX Runtime runs it, without JAX."""
    runtime: Literal["jax", "onnx"] = "jax"
    """What computes a run. `onnx` is ONNX Runtime on CPU: the first time, the run is exported into its folder."""
    checkpoint: Literal["newest", "best"] = "newest"
    """Checkpoint to use. `best` has the highest validation accuracy; it exists if training used --keep-best."""
    batch_size: int = BATCH_SIZE
    """Pictures that are computed together, at most."""
    face_model: Path | None = None
    """Find faces with this YuNet ONNX file instead of OpenCV's Haar cascade. `yunet` downloads OpenCV's file once."""
    host: str = "127.0.0.1"
    """Address to listen at. The default can be reached from this machine only; 0.0.0.0 from everywhere."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    allow_host: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ()
    """Host names under which clients may reach the server, beside those of this machine itself. Without it, any name is
    allowed where --host is not this machine alone."""
    token: str | None = None
    """Ask for this token. Other users of this machine can see it; --token-file and $FACEFEAT_TOKEN hide it."""
    token_file: Path | None = None
    """Ask for the token in this file."""
    queue: int = QUEUE
    """Pictures that may be in work or waiting. Beyond them requests are refused with 503. Below 32 it is the limit of
    pictures in a request too."""
    max_upload: Annotated[int, tyro.conf.arg(metavar="MIB")] = MAX_UPLOAD_MIB
    """Largest request, in MiB."""


def run(arguments: Arguments) -> int:
    """Serves until SIGINT or SIGTERM; returns the exit code, 0.

    Raises:
      UserError: an option is wrong, the port is in use, or the model can't be used.
    """
    token = check(arguments)
    from facefeat_jax.serving._server import Server, address_of, bound, listen

    found = bound(arguments.host, arguments.port)  # before the model is loaded
    with found:
        app = _app(arguments, token, found.getsockname()[0])
        listen(found, arguments.host)
        address = address_of(found)
        if token is None and not _is_loopback(found.getsockname()[0]):
            say(f"facefeat: whoever can reach {address} can use this server; --token-file asks for a token")
        say(f"facefeat: serving {arguments.run} at {address} (Ctrl-C stops it)")
        try:
            Server(app, app.log).answer(found)
        finally:
            has_ended = app.close()
    say("facefeat: stopped")
    if not has_ended:
        end_at_once(0)  # Python would wait for a thread that is in the middle of a picture
    return 0


def check(arguments: Arguments) -> str | None:
    """Checks what needs no model and returns the token.

    Raises:
      UserError: an option is wrong.
    """
    for name, least, most in (("batch_size", 1, 1024), ("queue", 1, 100_000), ("max_upload", 1, _LARGEST)):
        if not least <= (value := getattr(arguments, name)) <= most:
            raise UserError(f"--{name.replace('_', '-')} must be {least} to {most:,}, got {value}")
    if not 0 <= arguments.port < 2**16:
        raise UserError(f"--port must be 0 to 65,535, got {arguments.port}")
    if (is_exported(arguments.run) or arguments.runtime == "onnx") and arguments.checkpoint != "newest":
        raise UserError("--checkpoint needs the run and JAX; leave it out, or give the run without --runtime onnx")
    return _token(arguments)


def _token(arguments: Arguments) -> str | None:
    given = {"--token": arguments.token}
    if arguments.token_file is not None:
        try:
            given["--token-file"] = arguments.token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise UserError(
                f"{arguments.token_file} can't be read ({reason}); --token-file takes a text file"
            ) from error
    named = {name: text for name, text in given.items() if text is not None}
    if variable := os.environ.get(TOKEN):
        named[f"${TOKEN}"] = variable
    elif variable is not None and not named:
        raise UserError(f"${TOKEN} is empty; unset it, or give a token")
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} both give a token; give only one")
    for name, text in named.items():
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise UserError(f"{name} must be letters, digits and signs of ASCII without spaces, one at least")
        return text
    return None


def _app(arguments: Arguments, token: str | None, bound_to: str) -> Gate:
    from facefeat_jax.prediction._faces import is_asked_for
    from facefeat_jax.serving._gate import LOOPBACK
    from facefeat_jax.serving.app import create_app

    face_model = arguments.face_model
    if is_asked_for(face_model):
        from facefeat_jax.prediction._face_model import face_model_file

        face_model = face_model_file(face_model)
    run = arguments.run
    if arguments.runtime == "onnx" and not is_exported(run):
        from facefeat_jax.exporting._kept import kept_onnx

        run = kept_onnx(run)
    if not is_exported(run):
        from facefeat_jax.system.runtime import use_compilation_cache

        use_compilation_cache()
    named = arguments.allow_host or _is_loopback(bound_to)
    return create_app(
        run,
        checkpoint=arguments.checkpoint,
        batch_size=arguments.batch_size,
        queue=arguments.queue,
        max_upload=arguments.max_upload * 2**20,
        face_model=face_model,
        hosts=(*LOOPBACK, *arguments.allow_host) if named else None,
        token=token,
    )


def _is_loopback(address: str) -> bool:
    import ipaddress

    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
