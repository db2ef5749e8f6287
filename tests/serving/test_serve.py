"""`facefeat serve`: the answers of `predict` over HTTP, for programs and on a page, and one line for all else."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import io
import json
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from facefeat_jax import avatars
from facefeat_jax.cli import main
from facefeat_jax.commands._serve import Arguments, check
from facefeat_jax.serving import _gate, create_app
from facefeat_jax.serving._batching import BatchedPredictor
from facefeat_jax.serving._log import JsonLog
from facefeat_jax.serving._model import open_model
from facefeat_jax.serving._server import Server, address_of, bound, listen
from facefeat_jax.system.errors import UserError

from ..conftest import ROOT
from ..prediction.test_exported import WITHOUT_JAX, exported  # noqa: F401 - a fixture
from .browser import Browser, chromium

LIMIT = 200_000  # bytes of a request


@contextlib.contextmanager
def served(model: Path, **options) -> Iterator[tuple[str, object, io.StringIO]]:
    """Serves a model from a thread; gives the address, the application and its log."""
    log = io.StringIO()
    app = create_app(model, batch_size=2, log=JsonLog(log), **options)
    found = bound("127.0.0.1", 0)
    listen(found, "127.0.0.1")
    address = address_of(found)
    server = Server(app, app.log)
    thread = threading.Thread(target=server.answer, args=(found,))
    thread.start()
    try:
        yield address, app, log
    finally:
        server.should_exit = True
        thread.join()
        app.close()


@pytest.fixture(scope="module")
def site(exported) -> Iterator[str]:  # noqa: F811
    """The address of a server of the exported file."""
    with served(exported / "model.onnx", max_upload=LIMIT) as (address, _, _):
        yield address


def form(*pictures: tuple[str, bytes], **fields: str) -> tuple[bytes, dict[str, str]]:
    """Returns the body and the headers of an upload."""
    parts = [(f'name="pictures"; filename="{name}"', content) for name, content in pictures]
    parts += [(f'name="{name}"', text.encode()) for name, text in fields.items()]
    lines = [b"--mark\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (a.encode(), c) for a, c in parts]
    return b"".join([*lines, b"--mark--\r\n"]), {"Content-Type": "multipart/form-data; boundary=mark"}


def ask(address: str, path: str, body=None, headers=None, method=None, **options) -> tuple[int, dict, dict]:
    """Returns status, headers and JSON of an answer."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {}, **options)
        response = connection.getresponse()
        content = response.read()
    kind = response.headers.get_content_type()
    return response.status, dict(response.headers), json.loads(content) if kind == "application/json" else content


def post(address: str, *pictures: tuple[str, bytes], headers=(), **fields: str) -> tuple[int, dict, dict]:
    body, more = form(*pictures, **fields)
    return ask(address, "/v1/predict", body, {**more, **dict(headers)})


def charset(name: str) -> dict[str, str]:
    return {"Content-Type": f"multipart/form-data; boundary=mark; charset={name}"}


def predicted(capsys, *words: object) -> list[dict]:
    """Returns the lines of `facefeat predict`."""
    capsys.readouterr()
    main(["predict", *map(str, words), "--format", "jsonl"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def same(found: list[dict], wanted: list[dict]) -> None:
    """Asserts that results are lines of `predict`; the last digits depend on the batch."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() - {"picture"} == other.keys()
        assert {**one, "heads": 0, "picture": 0, "file": 0} == {**other, "heads": 0, "picture": 0, "file": 0}
        assert Path(other["file"]).name == one["file"]
        for task, head in other.get("heads", {}).items():
            given = one["heads"][task]
            assert (given["label"], given["unsure"]) == (head["label"], head["unsure"])
            np.testing.assert_allclose(
                list(given["probabilities"].values()), list(head["probabilities"].values()), atol=1e-6
            )


def contents(folder: Path, *names: str) -> list[tuple[str, bytes]]:
    return [(name, (folder / name).read_bytes()) for name in names]


def test_answers_are_those_of_predict(exported, site, tmp_path, capsys) -> None:  # noqa: F811
    model, names = exported / "model.onnx", ["0.png", "bad.png", "1.png", "2.png"]
    pictures = contents(exported, *names)
    (tmp_path / "empty.png").touch()
    status, headers, answer = post(site, *pictures, ("empty.png", b""))
    assert status == 200 and headers["x-request-id"] and headers["cache-control"] == "no-store"
    files = [*(exported / name for name in names), tmp_path / "empty.png"]
    same(answer["results"], predicted(capsys, model, *files))
    assert [one["picture"] for one in answer["results"]] == [0, 1, 2, 3, 4]
    # People: in boxes, in pixels or as shares; and looked for, where there are none.
    rows = ["0.png,10,5,30,25", "0.png,1,1,20,22", "2.png,0,0,9,9"]
    (tmp_path / "boxes.csv").write_text("file,left,top,right,bottom\n" + "".join(f"{exported}/{one}\n" for one in rows))
    boxes = [[[10, 5, 30, 25], [1, 1, 20, 22]], [], [], [[0, 0, 9, 9]]]
    _, _, answer = post(site, *pictures, boxes=json.dumps(boxes))
    wanted = predicted(capsys, model, *files[:4], "--boxes", tmp_path / "boxes.csv")
    same(answer["results"], wanted)
    assert [one["picture"] for one in answer["results"]] == [0, 0, 1, 2, 3]
    shares = [[[a / 50, b / 40, c / 50, d / 40] for a, b, c, d in of] for of in boxes]
    same(post(site, *pictures, boxes=json.dumps(shares))[2]["results"], wanted)
    same(post(site, *pictures, faces="true")[2]["results"], predicted(capsys, model, *files[:4], "--faces"))


def endless(address: str) -> tuple[int, dict, dict]:
    """Uploads without an end, and without saying how much it will be, until an answer comes."""
    host, port = address.removeprefix("http://").split(":")
    body, headers = form(("a.png", bytes(1 << 16)))
    with socket.create_connection((host, int(port)), timeout=60) as client:
        lines = ["POST /v1/predict HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        sent = 0
        while not select.select([client], [], [], 0.01)[0]:
            part = body[: -len(b"\r\n--mark--\r\n")] if not sent else bytes(1 << 16)
            client.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            sent += len(part)
        assert sent < 20 * LIMIT
        response = http.client.HTTPResponse(client)
        response.begin()
        return response.status, dict(response.headers), json.loads(response.read())


def test_what_cant_be_answered_is_one_line_and_is_not_read(exported, site) -> None:  # noqa: F811
    picture = contents(exported, "0.png")[0]
    head = {"Content-Type": "multipart/form-data; boundary=mark"}
    refusals = {
        413: [
            lambda: ask(site, "/v1/predict", b"", {**head, "Content-Length": str(10 * 2**30)}),
            lambda: endless(site),
        ],
        415: [lambda: ask(site, "/v1/predict", b""), lambda: ask(site, "/v1/predict", picture[1])],
        400: [
            lambda: ask(site, "/v1/predict", b"junk", head),
            lambda: post(site, *[("a.png", b"x")] * 33),
            lambda: post(site, picture, headers=charset("undefined")),
            lambda: post(site, ("xn--99999999.png", picture[1]), headers=charset("idna")),
        ],
        422: [
            lambda: post(site, faces="true"),
            lambda: post(site, picture, faces="perhaps"),
            lambda: post(site, picture, faces="1", boxes="[[]]"),
            *(
                (lambda text=text: post(site, picture, boxes=text))
                for text in ("", "[", "{}", "[]", "[[],[]]", "[[[1,2,3]]]", "[[[9,9,1,1]]]", "[[[0,0,1,NaN]]]")
            ),
            lambda: post(site, picture, boxes="[" * 60_000),
            lambda: post(site, picture, boxes=f"[[{','.join(['[1,1,9,9]'] * 101)}]]"),
            lambda: post(site, picture, boxes=f"[[[0,0,9,1{'0' * 400}]]]"),
            lambda: post(site, picture, boxes="[[[0,0,9,9],[0.1,0.1,0.9,0.9]]]"),
        ],
        421: [lambda: ask(site, "/", headers={"Host": "evil.example"})],
        403: [lambda: post(site, picture, headers={"Origin": "http://evil.example"})],
        404: [lambda path=path: ask(site, path) for path in ("/no", "/page/..%2fapp.py", "/examples/9.png")],
        405: [lambda: ask(site, "/v1/predict", method="DELETE")],
    }
    for status, calls in refusals.items():
        for call in calls:
            found = call()
            assert found[0] == status, (status, found)
            assert found[2].keys() == {"error"} and found[2]["error"].strip() and "\n" not in found[2]["error"]
    # The server is as it was.
    assert ask(site, "/healthz")[0] == 200 and post(site, picture)[0] == 200
    # A name that no answer can hold is replaced.
    status, _, answer = post(site, (r"\ud800.png", picture[1]), headers=charset("unicode_escape"))
    assert status == 200 and answer["results"][0]["file"] == "?.png" and answer["results"][0]["heads"]
    figures = ask(site, "/metrics")[2].decode()
    assert re.search(r'facefeat_requests_total\{route="/v1/predict",status="413"\} 2', figures)
    assert "facefeat_queue_pictures 0.0" in figures and "facefeat_answers_total" in figures


@contextlib.contextmanager
def half_sent(address: str, *pictures: tuple[str, bytes], headers=()) -> Iterator[tuple[socket.socket, bytes]]:
    """Sends half of an upload, which the server has begun to read; gives the connection and the other half."""
    where = address.removeprefix("http://")
    body, more = form(*pictures)
    with socket.create_connection(tuple(where.split(":")), timeout=60) as client:
        lines = [f"POST /v1/predict HTTP/1.1\r\nHost: {where}\r\nContent-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in {**more, **dict(headers)}.items()]
        client.sendall("\r\n".join([*lines, "", ""]).encode() + body[:50])
        assert ask(address, "/healthz")[0] == 200  # whoever connects later is answered later
        yield client, body[50:]


def answer_of(client: socket.socket) -> bytes:
    """Returns what comes until the server closes the connection."""
    answer = b""
    while more := client.recv(1 << 16):
        answer += more
    return answer


def test_a_run_is_served_for_those_with_the_token_and_the_queue_is_bounded(exported, capsys, monkeypatch) -> None:  # noqa: F811
    token = {"Authorization": "Bearer a-secret"}
    pictures = contents(exported, "0.png", "1.png")
    with served(exported / "run", token="a-secret", queue=2) as (address, app, log):
        for headers in ({}, {"Authorization": "Bearer a-secre"}, {"Authorization": "Basic a-secret"}):
            for path in ("/v1/model", "/metrics"):
                status, more, _ = ask(address, path, headers=headers)
                assert (status, more["www-authenticate"]) == (401, "Bearer")
            assert post(address, *pictures, headers=headers)[0] == 401
        assert ask(address, "/healthz")[0] == 200 and b"page.js" in ask(address, "/")[2]
        about = ask(address, "/v1/model", headers=token)[2]
        assert about["classes"]["gender"] == ["female", "male"] and about["runtime"] == "jax"
        found = post(address, *pictures, headers=token)[2]["results"]
        same(found, predicted(capsys, exported / "run", *(exported / name for name, _ in pictures)))
        assert about["limits"]["pictures"] == 2
        schema = ask(address, "/openapi.json", headers=token)[2]["paths"]["/v1/predict"]["post"]["requestBody"]
        assert schema["content"]["multipart/form-data"]["schema"]["properties"]["pictures"]["maxItems"] == 2
        # Uploads that are on their way take no place; those who leave are no error of the server.
        with contextlib.ExitStack() as clients:
            for _ in range(3):
                clients.enter_context(half_sent(address, *pictures, headers=token))
            assert post(address, *pictures, headers=token)[0] == 200
            monkeypatch.setattr(_gate, "_REQUESTS", 3)
            status, more, answer = ask(address, "/v1/model", headers=token)
            assert (status, more["retry-after"]) == (503, "1") and "more than 3 requests" in answer["error"]
            assert ask(address, "/healthz")[0] == 200
        monkeypatch.undo()
        while app._requests:
            time.sleep(0.01)
        # One batch is held back: what comes beside it finds no place.
        model, free = app._service._model._model, threading.Event()
        real = model._answers
        model._answers = lambda *arguments: free.wait(30) and real(*arguments)
        answers: list[int] = []
        waiting = threading.Thread(target=lambda: answers.append(post(address, *pictures, headers=token)[0]))
        waiting.start()
        while app._service.places.taken < 2:
            time.sleep(0.01)
        status, more, answer = post(address, pictures[0], headers=token)
        assert (status, more["retry-after"]) == (503, "1") and "try again" in answer["error"]
        free.set()
        waiting.join()
        assert answers == [200]
        # A fault of the model is a fault of one request.
        model._answers = lambda *_: 1 / 0
        assert post(address, pictures[0], headers=token)[0] == 500
        model._answers = real
        assert post(address, pictures[0], headers=token)[0] == 200
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {line["event"] for line in lines} == {"request", "server"}
    assert [line.get("status") for line in lines].count(499) == 3
    assert next(line for line in lines if line.get("pictures") == 2)["unreadable"] == 0
    assert "0.png" not in log.getvalue() and "a-secret" not in log.getvalue()


# Where the process ends, it writes down which packages it has loaded.
LISTED = """
import atexit, sys
where = sys.argv.pop(1)
def loaded():
    files = [(name, getattr(module, "__file__", None) or "") for name, module in sys.modules.items()]
    names = sorted({name.partition(".")[0] for name, file in files if "site-packages" in file})
    open(where, "w").write(" ".join(names))
atexit.register(loaded)
"""


def wanted_by(names: Iterable[str]) -> set[str]:
    """Returns distributions and all that they require."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.split(r"[^\w.-]", left.pop())[0].lower().replace("_", "-")
        if name not in found:
            found.add(name)
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                left += [one for one in importlib.metadata.requires(name) or () if "extra ==" not in one]
    return found


def test_the_process_needs_no_jax_and_answers_what_it_has_begun_when_it_is_stopped(exported, tmp_path, capsys) -> None:  # noqa: F811
    model, picture = exported / "model.onnx", contents(exported, "0.png")[0]
    words = [sys.executable, "-c", LISTED + WITHOUT_JAX, tmp_path / "loaded", "serve", model, "--port", "0"]
    process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://127.0.0.1:(\d+)", process.stderr.readline())
        port = int(address[1])
        assert main(["serve", str(model), "--port", str(port)]) == 2
        said = capsys.readouterr().err
        assert "in use" in said and len(said.splitlines()) == 1
        with half_sent(address[0], ("their-name.png", picture[1])) as (client, rest):
            process.send_signal(signal.SIGTERM)
            with pytest.raises(OSError):  # nobody new is let in
                while True:
                    ask(address[0], "/healthz")
            client.sendall(rest)
            answer = answer_of(client)
        assert answer.startswith(b"HTTP/1.1 200") and b'"heads"' in answer
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in err
    found = [json.loads(line) for line in out.splitlines()]
    assert found[-1]["route"] == "/v1/predict" and found[-1]["pictures"] == 1 and "their-name" not in out
    # The image has what was loaded and nothing else.
    listed = [line for line in (ROOT / "deploy" / "requirements.txt").read_text().splitlines() if line[0] != "#"]
    by_module = importlib.metadata.packages_distributions()
    modules = (tmp_path / "loaded").read_text().split()
    loaded = {one.lower().replace("_", "-") for name in modules for one in by_module.get(name, ())}
    # Where setuptools is installed, a file of its own has Python load it at every start.
    assert loaded and loaded - {"facefeat-jax", "setuptools"} <= wanted_by(listed)
    assert set(listed) <= loaded | {"opencv-python-headless"}  # which is loaded for a picture with people
    pins = (ROOT / "constraints.txt").read_text()
    assert all(re.search(rf"^{name}==", pins, re.MULTILINE) for name in listed)


# A server whose pictures take longer to decode than a stop may take.
SLOW = """
import sys, time
from facefeat_jax.cli import main
from facefeat_jax.prediction import _pictures
from facefeat_jax.serving import _server, _service
_server._GRACE_S, _service._END_S = 1, 0.5
_pictures.decode_resized = lambda *_, **__: print("decoding", flush=True) or time.sleep(60)
sys.exit(main(sys.argv[1:]))
"""


def test_a_stop_waits_for_no_decoder(exported) -> None:  # noqa: F811
    words = [sys.executable, "-c", SLOW, "serve", str(exported / "model.onnx"), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://127.0.0.1:\d+", process.stderr.readline())[0]
        with half_sent(address, *contents(exported, "0.png")) as (client, rest):
            client.sendall(rest)
            while process.stdout.readline() != "decoding\n":
                pass
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            answer = answer_of(client)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    finally:
        process.kill()
    assert process.returncode == 0 and err.splitlines() == ["facefeat: stopped"]
    assert answer.startswith(b"HTTP/1.1 503") and b"is stopping" in answer
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["status"] == 503 and not any("traceback" in line for line in lines)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_where_no_more_batches_are_computed_nobody_waits_for_one(exported) -> None:  # noqa: F811
    model, _ = open_model(exported / "model.onnx", batch_size=2)
    pixels = [np.zeros((model.spec.image_size,) * 2 + (3,), np.uint8)]
    for done, end in ((lambda *_: None, BatchedPredictor.close), (lambda *_: 1 / 0, lambda one: one._worker.join())):
        batched = BatchedPredictor(model, read=model.read, expected=lambda: 0, done=done)
        assert batched._answers(pixels, [""])
        end(batched)
        with pytest.raises(RuntimeError, match="has ended"):
            batched._answers(pixels, [""])
        assert not batched.is_alive


def test_an_empty_variable_opens_no_server_and_is_nothing_beside_a_token(tmp_path, monkeypatch) -> None:
    model, file = Path("model.onnx"), tmp_path / "token.txt"
    file.write_text("a-secret\n")
    monkeypatch.setenv("FACEFEAT_TOKEN", "")
    with pytest.raises(UserError, match=r"^\$FACEFEAT_TOKEN is empty; unset it, or give a token$"):
        check(Arguments(model))
    assert check(Arguments(model, token_file=file)) == "a-secret"
    monkeypatch.setenv("FACEFEAT_TOKEN", "another")
    with pytest.raises(UserError, match="both give a token"):
        check(Arguments(model, token_file=file))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--port", "70000"], "--port must be"),
        (["--host", "no.such.host.invalid"], "can't serve at no.such.host.invalid"),
        (["--queue", "0"], "--queue must be 1"),
        (["--max-upload", "9999"], "--max-upload must be"),
        (["--token", ""], "--token must be"),
        (["--token", "a", "--token-file", "absent"], "absent can't be read"),
        (["--checkpoint", "best"], "needs the run"),
        (["--face-model", "absent.onnx"], "absent.onnx does not exist"),
    ],
)
def test_wrong_calls_are_one_line(exported, capsys, words, reason) -> None:  # noqa: F811
    assert main(["serve", str(exported / "model.onnx"), "--port", "0", *words]) == 2
    said = capsys.readouterr().err
    assert reason in said and len(said.splitlines()) == 1


def test_what_is_no_model_is_one_line(exported, tmp_path, capsys) -> None:  # noqa: F811
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    for path, reason in ((tmp_path / "junk.onnx", "not a model"), (tmp_path / "no.onnx", "there is no file")):
        assert main(["serve", str(path), "--port", "0"]) == 2
        said = capsys.readouterr().err
        assert reason in said and len(said.splitlines()) == 1
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_the_page_says_what_predict_says(exported, site, tmp_path, capsys) -> None:  # noqa: F811
    program = chromium()
    if program is None:
        pytest.skip("no chromium on PATH; the page is not opened in a browser")
    picture = tmp_path / "a photograph.png"
    avatars.draw(20_000, 1).image.resize((300, 300)).save(picture)
    with Browser(program, tmp_path / "profile") as page:
        page.open(f"{site}/", width=390)
        page.wait_for("document.querySelectorAll('#facts dt').length > 4")
        page.run("document.getElementById('faces').checked = false")
        page.upload("#files", picture, exported / "bad.png")
        page.wait_for("document.querySelectorAll('article[data-done]').length === 2")
        # By keyboard: the first drawing is the next stop after the switch for faces.
        page.run("document.getElementById('faces').focus()")
        page.press("Tab", 9)
        page.press("Enter", 13)
        page.wait_for("document.querySelectorAll('article[data-done=yes]').length === 3")
        articles = page.run("[...document.querySelectorAll('article')].map(one => one.innerText)")
        (wanted,) = predicted(capsys, exported / "model.onnx", picture)
        for task, head in wanted["heads"].items():
            shown = page.run(
                "[...document.querySelectorAll('article')].find(one => one.innerText.includes('a photograph'))"
                f".querySelector('[data-head={task}]').innerText"
            )
            label, share = head["label"], f"{100 * head['probability']:.1f}%"
            assert (f"unsure ({label}, {share})" in shown) == head["unsure"], shown
            reason = {"gender": "are withheld", "shirt": "it is never sure"}[task]
            assert not head["unsure"] or ("is unlike those" if head.get("unlike") else reason) in shown
            for name, probability in head["probabilities"].items():
                assert re.search(rf"{name}\s+{100 * probability:.1f}%", shown), shown
        assert any("This picture can't be used" in one and "bad.png" in one for one in articles)
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        page.open(f"{site}/docs")
        page.wait_for("document.querySelectorAll('details.call').length > 5")
        assert "/v1/predict" in page.run("document.body.innerText")
        assert not page.complaints
        assert all(address.startswith((site, "about:", "blob:")) for address in page.asked)
