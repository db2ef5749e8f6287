"""The routes of the server."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from facefeat_jax import __version__, avatars
from facefeat_jax.prediction._output import as_json
from facefeat_jax.serving._boxes import BoxesError, read_boxes
from facefeat_jax.serving._defaults import BATCH_SIZE, MAX_UPLOAD_MIB, QUEUE
from facefeat_jax.serving._gate import LOOPBACK, PREDICT, Gate
from facefeat_jax.serving._log import JsonLog
from facefeat_jax.serving._model import open_model
from facefeat_jax.serving._service import Service, Upload, Way

MAX_PICTURES = 32
"""Pictures in one request."""

_EXAMPLES = 4
_EXAMPLE_SEED = 20_000  # of pictures in no split of the drawn data set, as scripts/draw_avatars.py draws them
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def _body(most: int) -> dict[str, Any]:
    """Returns the schema of the form, with the most pictures that it may have."""
    schema = {
        "type": "object",
        "required": ["pictures"],
        "properties": {
            "pictures": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "maxItems": most,
                "description": f"Picture files, {most} at most. Their content, not their name, decides the format.",
            },
            "faces": {
                "type": "boolean",
                "default": False,
                "description": "Find the faces and answer for each person.",
            },
            "boxes": {
                "type": "string",
                "description": "Instead of finding faces: JSON with a list for each picture of its faces, "
                "[[[left,top,right,bottom]]], in pixels or all as fractions from 0 to 1.",
            },
        },
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


class Box(BaseModel):
    """The box of a face, in pixels of the picture."""

    left: float
    top: float
    right: float
    bottom: float


class Head(BaseModel):
    """The answer of one head."""

    label: str = Field(description="the most probable class; a guess where `unsure` is true")
    probability: float = Field(description="of that class, calibrated if the model is")
    probabilities: dict[str, float] = Field(description="of every class")
    unsure: bool
    unlike: bool | None = Field(None, description="unsure because the picture is unlike the training pictures")


class Result(BaseModel):
    """A line of `facefeat predict --format jsonl`, and the number of the picture that it is for."""

    model_config = ConfigDict(extra="allow")
    picture: int = Field(description="number of the upload, from 0")
    file: str = Field(description="name of the upload")
    error: str | None = Field(None, description="why the picture can't be used; there are no heads then")
    person: int | None = Field(None, description="number of the person in the picture, from 1")
    face: Box | None = None
    heads: dict[str, Head] | None = None
    note: str | None = None


class Results(BaseModel):
    """The answers of a request."""

    model: str = Field(description="fingerprint: the same one means the same answers")
    results: list[Result] = Field(
        description="in the order of the uploads: one for each; with faces or boxes one for each person"
    )


class Problem(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="one line")


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "not a form that can be read",
        401: "the server's token is missing or another",
        408: "the upload was too slow",
        413: "the request is too large",
        415: "not multipart/form-data",
        422: "no picture, or boxes or faces that can't be used",
        503: "too many pictures are waiting: try again after the seconds of Retry-After",
    }.items()
}


def create_app(
    model: str | Path,
    *,
    checkpoint: Literal["newest", "best"] = "newest",
    batch_size: int = BATCH_SIZE,
    queue: int = QUEUE,
    max_upload: int = MAX_UPLOAD_MIB * 2**20,
    face_model: Path | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    token: str | None = None,
    log: JsonLog | None = None,
) -> Gate:
    """Loads a model and returns the ASGI application that answers with it; one process, one application.

    Args:
      model: a run folder, which JAX runs, or an ONNX file of `facefeat export`, which ONNX Runtime runs without JAX.
      checkpoint: of a run, as in `Predictor.from_run`.
      batch_size: pictures that are computed together at most.
      queue: pictures that may be in work or waiting; beyond them requests are refused with 503.
      max_upload: largest request in bytes.
      face_model: a YuNet ONNX file to find faces with; None for OpenCV's cascade.
      hosts: names that requests may be sent to; None for any. The default keeps pages of other sites from using a
        server on this machine by a name of theirs.
      token: what requests have to bring; None for nothing.
      log: where requests are written down; the default is standard output.

    Raises:
      UserError: the model or the face model can't be used.
    """
    predictor, about = open_model(Path(model), batch_size=batch_size, checkpoint=checkpoint)
    service = Service(predictor, queue=queue, face_model=face_model)
    about["faces"] = service.can_find_faces
    about["limits"] = {"bytes": max_upload, "pictures": min(MAX_PICTURES, queue)}
    routes = _routes(service, about)
    return Gate(
        routes,
        service=service,
        log=log or JsonLog(),
        hosts=hosts,
        token=token,
        max_upload=max_upload,
        routes={getattr(route, "path", "") for route in routes.routes},
    )


def _routes(service: Service, about: Mapping[str, Any]) -> FastAPI:
    app = FastAPI(
        title="facefeat",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        description="Answers for pictures of people.",
    )
    most: int = about["limits"]["pictures"]

    @app.post(
        PREDICT,
        openapi_extra={"requestBody": _body(most)},
        responses=_REFUSALS,
        response_model=Results,
        response_description="the answers",
    )
    async def predict(request: Request) -> Response:
        """Answers for pictures. One that can't be used has an `error`; the others have their answers."""
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise HTTPException(415, "send the pictures as multipart/form-data: curl -F pictures=@photo.jpg URL")
        try:
            form = await request.form(max_files=most, max_fields=16, max_part_size=2**16)
        except OSError as error:
            raise HTTPException(503, f"no room for the upload ({error.strerror})") from error
        except UnicodeError:
            raise HTTPException(400, "the form can't be read by its charset; leave the charset out") from None
        try:
            files = [one for name, one in form.multi_items() if name == "pictures" and isinstance(one, UploadFile)]
            way, uploads = _asked(form, files, service)
            with request.scope["facefeat"].places(len(files)):
                answers = await service.answer(uploads, way)
        finally:
            # When the server stops, threads may still read the files, which are closed when nobody has them any more.
            if not isinstance(sys.exception(), asyncio.CancelledError):
                await form.close()
        results = [
            {"picture": number, **as_json(one, (file.filename or "").encode("utf-8", "replace").decode())}
            for number, (file, predictions) in enumerate(zip(files, answers, strict=True))
            for one in predictions
        ]
        bad = sum(predictions[0].error is not None for predictions in answers)
        request.scope["facefeat"].about = {"pictures": len(files), "unreadable": bad, "way": way}
        return JSONResponse({"model": about["model"], "results": results})

    @app.get("/v1/model", responses={401: _REFUSALS[401]})
    async def model() -> dict[str, Any]:
        """What the model is: classes, thresholds of `unsure`, training data, card, and the limits of a request."""
        return dict(about)

    @app.get("/healthz")
    async def health() -> JSONResponse:
        """Whether the server can answer: 200, or 503."""
        ready = service.is_alive
        return JSONResponse({"live": True, "ready": ready, "model": about["model"]}, 200 if ready else 503)

    @app.get("/healthz/live")
    async def live() -> dict[str, bool]:
        """Whether the process is alive."""
        return {"live": True}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    _add_pages(app)
    _add_errors(app)
    return app


def _asked(form: FormData, files: list[UploadFile], service: Service) -> tuple[Way, list[Upload]]:
    """Returns what a form asks for.

    Raises:
      HTTPException: it can't be answered.
    """
    if not files:
        raise HTTPException(422, "no picture was sent; give files named `pictures`: curl -F pictures=@photo.jpg URL")
    faces, text = str(form.get("faces", "")).strip().lower(), form.get("boxes")
    if faces not in ("", "0", "1", "false", "true", "no", "yes", "off", "on"):
        raise HTTPException(422, "faces is true or false")
    is_asked = faces in ("1", "true", "yes", "on")
    if text is not None and is_asked:
        raise HTTPException(422, "boxes gives the faces and faces finds them; give only one of them")
    if is_asked and not service.can_find_faces:
        raise HTTPException(422, "this server can't find faces: the extra `faces` is not installed there; give boxes")
    if text is None:
        return "faces" if is_asked else "whole", [Upload(one.file, one.size or 0) for one in files]
    try:
        boxes, are_shares = read_boxes(text if isinstance(text, str) else "", len(files))
    except BoxesError as error:
        raise HTTPException(422, str(error)) from None
    return "boxes", [
        Upload(one.file, one.size or 0, tuple(of), are_shares) for one, of in zip(files, boxes, strict=True)
    ]


def _add_pages(app: FastAPI) -> None:
    """Adds the page, that of the interface, and the pictures to try them with; all of it comes from here."""
    folder = resources.files("facefeat_jax.serving") / "page"
    files = {file.name: (file.read_bytes(), _TYPES[Path(file.name).suffix]) for file in folder.iterdir()}
    examples = [_png(number) for number in range(_EXAMPLES)]

    def page(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such page")
        content, kind = files[name]
        return Response(content, media_type=kind)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return page("docs.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        return page(name)

    @app.get("/examples/{number}.png", include_in_schema=False)
    async def example(number: int) -> Response:
        if not 0 <= number < _EXAMPLES:
            raise HTTPException(404, "there is no such picture")
        return Response(examples[number], media_type="image/png")


def _png(number: int) -> bytes:
    file = io.BytesIO()
    avatars.draw(_EXAMPLE_SEED, number).image.save(file, "PNG")
    return file.getvalue()


def _add_errors(app: FastAPI) -> None:
    """Has every error be one line of JSON."""

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        texts = {404: "there is no such page; /docs lists what there is", 405: "not by this method; see /docs"}
        text = texts.get(error.status_code, "") if error.detail in ("Not Found", "Method Not Allowed") else error.detail
        return JSONResponse({"error": text}, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def unusable(_: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"error": "the address can't be used; /docs lists what there is"}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # for the log; nobody reads it

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "a fault of the server; its log has more"}, 500)
