"""Where `predict` takes pictures from: folders, patterns, the home folder and addresses."""

from __future__ import annotations

import csv
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from facefeat_jax.cli import main
from facefeat_jax.data._decoder_limits import BadImageError
from facefeat_jax.prediction import _addresses as addresses
from facefeat_jax.prediction._inputs import expanded

from ..made import encoded, noise

PICTURE = encoded(noise(24, 24))


@pytest.fixture
def album(tmp_path, monkeypatch) -> Path:
    """A folder of pictures and other files, which is the working folder and the home folder."""
    for name in ("b.png", "a.JPG", "sub/c.webp", "sub/deep/d[1].png", "notes.txt", ".hidden/e.png", "sub/film.mp4"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURE)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_words_stand_for_the_pictures_that_a_person_means(album):
    everything = [f"photos/{name}" for name in ("a.JPG", "b.png", "sub/c.webp", "sub/deep/d[1].png")]
    home = [os.path.join(album, name) for name in everything]
    for words, pattern, names in (
        (["photos"], None, everything),
        (["photos/"], None, everything),
        (["photos"], "*.png", [everything[1], everything[3]]),
        (["photos"], "sub/*", ["photos/sub/c.webp", "photos/sub/film.mp4"]),
        (["photos/**/*.png"], None, [everything[1], everything[3]]),
        (["photos/?.JPG", "photos/b.png"], None, everything[:2]),
        (["photos/sub/deep/d[1].png"], None, [everything[3]]),
        (["~/photos"], None, home),
        (["~/photos/*.png"], None, home[1:2]),
        (["empty", "photos/*.gif", "absent.png"], None, ["empty", "photos/*.gif", "absent.png"]),
        (["http://x/a.png", "HTTPS://x/?"], None, ["http://x/a.png", "HTTPS://x/?"]),
    ):
        assert expanded(words, pattern)[0] == names, words
    assert expanded(["photos"])[1] == ["photos: 4 pictures, 2 other files; --glob PATTERN chooses"]
    (album / "photos" / "gone.png").symlink_to("nowhere")
    assert "photos/gone.png: left out, a dangling link" in expanded(["photos"])[1]


def test_a_folder_is_answered_file_by_file(album, trained_run, capsys):
    assert main(["predict", str(trained_run), "photos", "--out", "answers.csv"]) == 0
    with open("answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == expanded(["photos"])[0] and not any(row["error"] for row in rows)
    assert "4 pictures, 2 other files" in capsys.readouterr().err
    assert main(["predict", str(trained_run), "empty", "photos/x*.png", "photos/b.png", "--format", "jsonl"]) == 2
    errors = [json.loads(line).get("error") for line in capsys.readouterr().out.splitlines()]
    assert errors == ["can't be read: a directory without pictures", "can't be read: No such file or directory", None]


def test_a_run_that_is_missing_is_named(album, trained_run, capsys):
    for argv, hint in (
        (["photos/b.png"], "no run folder photos/b.png; name the run, then name the pictures"),
        (["photos/b.png", "photos/a.JPG"], "photos/b.png is a file, not the folder of a run"),
        (["absent", "photos"], "there is no run folder absent"),
        (["photos", "photos/b.png"], "photos is not a run folder"),
    ):
        assert main(["predict", *argv]) == 2
        err = capsys.readouterr().err
        assert hint in err and len(err.splitlines()) == 1


asked: list[str] = []


@pytest.fixture
def site():
    """A server on this machine; gives its address, and adds to `asked` what it is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = self.path.partition("?")[0]
            asked.append(page)
            if page == "/slow.png":
                self.send_response(200)
                self.end_headers()
                for _ in range(50):  # a byte at a time: no single wait is long
                    self.wfile.write(b"x")
                    time.sleep(0.05)
                return
            if page in REDIRECTS:
                self.send_response(302)
                self.send_header("Location", REDIRECTS[page])
                self.end_headers()
                return
            content = {"/a b.png": PICTURE, "/a%20b.png": PICTURE, "/large": b"x" * 1000, "/page": b"<html>"}.get(page)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"") + 10 * (page == "/page")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    REDIRECTS = {"/moved": "/a%20b.png?size=1", "/round": "/round", "/out": "file:///etc/passwd", "/no": "http://["}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        REDIRECTS["/elsewhere"] = f"http://localhost:{server.server_port}/a%20b.png"
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses_are_answered_like_files(site, trained_run, tmp_path, capsys):
    names = [f"{site}/a b.png", f"{site}/moved", f"{site}/absent.png"]
    argv = ["predict", str(trained_run), *names, "--format", "jsonl"]
    asked.clear()
    assert main([*argv, "--allow-private-addresses", "--draw", str(tmp_path / "drawn")]) == 2
    assert sorted(asked) == ["/a%20b.png", "/a%20b.png", "/absent.png", "/moved"]  # nothing twice, for the drawings
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["file"] for answer in answers] == names
    for head, moved in zip(answers[0]["heads"].values(), answers[1]["heads"].values(), strict=True):
        # On some CPUs, XLA rounds by a picture's place in the batch.
        assert head["label"] == moved["label"]
        assert head["probabilities"] == pytest.approx(moved["probabilities"], abs=1e-7)
    assert answers[2]["error"] == "can't be fetched: 404 Not Found"
    assert len(list((tmp_path / "drawn").iterdir())) == 2
    assert main(argv) == 2
    refused = [json.loads(line)["error"] for line in capsys.readouterr().out.splitlines()]
    assert all("127.0.0.1, which is no public address; --allow-private" in error for error in refused)


def test_the_certificate_of_an_https_address_is_checked(tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    (tmp_path / "a.png").write_bytes(PICTURE)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    subprocess.run([*words, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"https://localhost:{server.server_port}/a.png"
        with pytest.raises(
            BadImageError, match="its certificate is not trusted, self-signed certificate; SSL_CERT_FILE"
        ):
            addresses.fetch(address, allow_private=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert addresses.fetch(address, allow_private=True) == PICTURE
        server.shutdown()


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("/large", "larger than"),
        ("/page", "cut short|IncompleteRead"),
        ("/round", "more than 5 redirects"),
        ("/out", "redirected to file:///etc/passwd"),
        ("/no", "no address"),
        ("/slow.png", "it took too long"),
    ],
)
def test_what_is_fetched_is_bounded(site, page, reason, monkeypatch):
    monkeypatch.setattr(addresses, "MAX_BYTES", 500)
    started = time.monotonic()
    with pytest.raises(BadImageError, match=reason):
        addresses.fetch(site + page, allow_private=True, seconds=0.5)
    assert time.monotonic() - started < 1.5


def test_a_redirect_is_checked_as_the_first_address_is(site, monkeypatch):
    """The first host counts as public here; the one that it leads to does not."""
    real = socket.getaddrinfo

    def resolve(host, *args, **options):
        return real("127.0.0.2" if host == "localhost" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(addresses, "_is_public", lambda ip: ip == "127.0.0.1")
    with pytest.raises(BadImageError, match=r"localhost is 127\.0\.0\.2, which is no public address"):
        addresses.fetch(f"{site}/elsewhere")


def test_a_name_is_resolved_once_and_the_connection_goes_there(site, monkeypatch):
    answers = [("127.0.0.1",), ("192.0.2.1",)]
    port = int(site.rpartition(":")[2])
    real = socket.getaddrinfo
    asked = []

    def resolve(host, *args, **options):
        if host != "example.test":
            return real(host, *args, **options)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (*answers[len(asked) - 1], port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert addresses.fetch(f"http://example.test:{port}/a%20b.png", allow_private=True) == PICTURE
    assert asked == ["example.test"]


@pytest.mark.parametrize(
    ("ip", "is_public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        *(
            (ip, False)
            for ip in (
                "127.0.0.1",
                "10.1.2.3",
                "192.168.0.1",
                "169.254.169.254",
                "100.64.0.1",
                "0.0.0.0",
                "224.0.0.1",
                "255.255.255.255",
                "::1",
                "fe80::1%eth0",
                "fc00::1",
                "::ffff:127.0.0.1",
                "64:ff9b::7f00:1",
                "2002:7f00:1::",
            )
        ),
    ],
)
def test_only_public_addresses_count_as_such(ip, is_public):
    assert addresses._is_public(ip) == is_public
