"""A model to the Hugging Face Hub and back, on a small server that speaks the requests that are used."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import safetensors.numpy

import weights_conversion
from facefeat_jax import Predictor, create_model
from facefeat_jax.cli import main
from facefeat_jax.evaluation.calibration import HeadCalibration
from facefeat_jax.models import abstract, get_architecture
from facefeat_jax.runs.run_folder import MODEL_CARD, open_run
from facefeat_jax.runs.spec import ModelSpec
from facefeat_jax.system.errors import UserError

from ..made import filled, noise
from .test_portable import made_run

pytest.importorskip("huggingface_hub")
# Of its own upload.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKEN = "hf_secret"
CARD = "---\nlicense: other\n---\n# A card\n"
NAME = "someone/faces"


class Hub(ThreadingHTTPServer):
    """Models by name: their commits, newest last, each the content of files by name. `lie` changes what is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.models: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.lie = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        commits = self.models.setdefault(name, [])
        commit = hashlib.sha1(f"{name} {len(commits)}".encode()).hexdigest()
        commits.append((commit, {**(commits[-1][1] if commits else {}), **files}))
        return commit

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.models.get(name, [])
        if revision == "main":
            return commits[-1] if commits else None
        return next((entry for entry in commits if entry[0] == revision), None)


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        length = len(content) * (2 if self.server.lie == "cut" and len(content) > 1000 else 1)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        if length > len(content):
            self.close_connection = True

    def json(self, value: object, status: int = 200, **headers: str) -> None:
        self.send(status, json.dumps(value).encode(), **headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.lie.isdecimal():
            return self.json({"error": "no"}, int(self.server.lie))
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            name, revision = found.groups()
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            name, revision = found.groups()[:2]
        else:
            return self.json({"error": "not known"}, 404)
        if name not in self.server.models:
            return self.json({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
        if name == "someone/private" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.json({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
        entry = self.server.files(name, revision)
        if entry is None:
            return self.json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        commit, files = entry
        if path.startswith("/api/"):
            siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
            return self.json({"id": name, "sha": commit, "siblings": siblings})
        file = found.group(3)
        if file not in files:
            return self.json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        content = files[file]
        if self.server.lie == "other":
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self.send(200, content, X_Repo_Commit=commit, ETag=f'"{hashlib.sha1(content).hexdigest()}"')

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send(200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.lie == "403":
            return self.json({"error": "read-only"}, 403)
        if self.path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.json({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            return self.json({"url": f"{self.server.address}/{NAME}"})
        if "/preupload/" in self.path:
            modes = {"README.md": "regular"}
            files = [(entry["path"], modes.get(entry["path"], "lfs")) for entry in json.loads(body)["files"]]
            return self.json({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in files]})
        if self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            actions = [
                {**entry, "actions": {"upload": {"href": f"{self.server.address}/lfs/{entry['oid']}"}}}
                for entry in wanted
            ]
            return self.json({"transfer": "basic", "objects": actions})
        if "/commit/" in self.path:
            files = {}
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    files[line["value"]["path"]] = self.server.objects[line["value"]["oid"]]
            commit = self.server.commit(self.path.removeprefix("/api/models/").partition("/commit/")[0], files)
            return self.json({"commitUrl": f"{self.server.address}/{NAME}/commit/{commit}", "commitOid": commit})
        return self.json({"error": "not known"}, 404)


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[Hub]:
    monkeypatch.setenv("FACEFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with Hub() as serving:
        # The library reads its variables once.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", serving.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        template = serving.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", serving.address)
        Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture(scope="session")
def run(small_trunk, once) -> Path:
    """A calibrated run with a model card; tests only read it."""

    def fill(folder: Path) -> None:
        heads = {"gender": HeadCalibration(1.5, 0.6, n=50)}
        made = made_run(folder / "run", small_trunk, calibration=heads)
        (made / MODEL_CARD).write_text(CARD)
        noise(40, 50).save(folder / "0.png")

    return once("hub", fill) / "run"


def test_a_pushed_model_answers_as_the_run(server, run, capsys, tmp_path):
    assert main(["push", str(run), NAME]) == 0
    out = capsys.readouterr().out
    ((commit, files),) = server.models[NAME]
    assert commit in out and f"hf://{NAME}" in out
    assert files.keys() == {"model.safetensors", "README.md"} and files["README.md"].decode() == CARD
    picture = str(run.parent / "0.png")
    assert main(["predict", f"hf://{NAME}", picture, "--json"]) == 0
    said = capsys.readouterr()
    assert f"{NAME} at commit {commit}, downloaded now, and trusted" in said.err
    assert main(["predict", str(run), picture, "--json"]) == 0
    assert json.loads(said.out) == json.loads(capsys.readouterr().out)
    # A newer commit is taken where it is asked for; and what was downloaded takes no network.
    files = {**files, "model.safetensors": files["model.safetensors"][:-4] + np.float32(1).tobytes()}
    newer = server.commit(NAME, files)
    server.asked.clear()
    first = Predictor.from_hub(NAME)
    assert not server.asked and commit in capsys.readouterr().err
    assert first.fingerprint() == Predictor.from_run(run).fingerprint()
    assert Predictor.from_hub(NAME, revision="main").fingerprint() != first.fingerprint()
    assert newer in capsys.readouterr().err
    assert Predictor.from_hub(NAME, revision=commit).fingerprint() == first.fingerprint()
    assert Predictor.from_hub(NAME).fingerprint() == first.fingerprint()
    # A revision that was asked for does not become the meaning of the bare name.
    shutil.rmtree(tmp_path / "cache")
    assert Predictor.from_hub(NAME, revision=commit).fingerprint() == first.fingerprint()
    assert Predictor.from_hub(NAME).fingerprint() != first.fingerprint()


def test_what_is_wrong_with_the_hub_is_one_line(server, run, capsys, tmp_path, monkeypatch):
    def refused(*words: str, reason: str) -> None:
        assert main(list(words)) == 2
        err = capsys.readouterr().err
        assert reason in err and len(err.splitlines()) == 1 and TOKEN not in err, err

    def predicting(name: str, reason: str, revision: str = "") -> None:
        refused("predict", f"hf://{name}{revision}", str(run.parent / "0.png"), reason=reason)

    assert main(["push", str(run), NAME]) == 0
    weights = server.models[NAME][0][1]["model.safetensors"]
    server.commit("someone/empty", {"README.md": b""})
    server.commit("someone/plain", {"model.safetensors": safetensors.numpy.save({"a": np.zeros(3, np.float32)})})
    server.commit("someone/pickle", {"model.safetensors": b"\x80\x04cos\nsystem\n"})
    server.commit("someone/private", {"model.safetensors": weights})
    capsys.readouterr()
    predicting("someone/nobody", "the server answered 401")
    predicting("someone", "give owner/name")
    predicting("../faces", "give owner/name")
    predicting(NAME, "has no revision 'v9'", "@v9")
    predicting("someone/empty", "has no file model.safetensors")
    assert main(["predict", "hf://someone/plain", str(run.parent / "0.png")]) == 2
    assert "was not written by `facefeat push`" in capsys.readouterr().err
    predicting("someone/pickle", "is no safetensors file")
    server.commit("someone/zip", {"model.safetensors": b"PK\x03\x04\0\0\0\0{}"})
    predicting("someone/zip", "is no safetensors file")
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    server.lie = "cut"
    predicting(NAME, "can't be had")
    server.lie = "503"
    predicting(NAME, "the server answered 503")
    server.lie = ""
    assert Predictor.from_hub(NAME)
    server.lie = "other"
    (tmp_path / "cache" / "hub" / "someone--faces" / server.models[NAME][0][0] / "model.safetensors").unlink()
    capsys.readouterr()
    predicting(NAME, "has changed: its SHA-256 is")
    server.lie = ""
    assert Predictor.from_hub(NAME)  # the right one is taken again
    assert Predictor.from_hub("someone/private")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    capsys.readouterr()
    predicting("someone/private", "HF_TOKEN may not read it")
    refused("push", str(run), NAME, reason="the server answered 401: HF_TOKEN is not set or may not write there")
    server.lie = "403"
    refused("push", str(run), NAME, reason="the server answered 403: HF_TOKEN is not set or may not write there")
    server.lie = ""
    refused("push", str(run), "name", reason="give owner/name")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    predicting(NAME, "can't be had")
    with pytest.raises(UserError, match="needs"):
        (bare := tmp_path / "bare").mkdir()
        shutil.copy(run / "config.json", bare)
        from facefeat_jax.exporting.hub import push

        push(bare, NAME)


def test_weights_of_timms_come_with_their_preprocessing(server, run, small_trunk, capsys):
    trunk = open_run(run).model.trunk
    tensors = {name: np.asarray(value) for name, value in weights_conversion.to_torch(trunk).items()}
    config = {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5], "interpolation": "bicubic"}}
    files = {"model.safetensors": safetensors.numpy.save(tensors), "config.json": json.dumps(config).encode()}
    commit = server.commit("timm/resnet18.a1_in1k", files)
    model = create_model(small_trunk, tasks=[], weights="hf-hub:timm/resnet18.a1_in1k")
    assert commit in capsys.readouterr().err
    found = weights_conversion.to_torch(model.trunk)
    assert found.keys() == tensors.keys() and all((found[name] == tensors[name]).all() for name in tensors)
    spec = ModelSpec.following(small_trunk, {"gender": ("a", "b")}, 32, "upright", "hf-hub:timm/resnet18.a1_in1k")
    assert (spec.mean, spec.std, spec.interpolation) == ((0.5, 0.5, 0.5), (0.25, 0.5, 0.5), "bicubic")
    found = weights_conversion.hub_preprocessing("timm/resnet18.a1_in1k")
    assert (found.image_size, found.resize, found.mean) == (224, 256, spec.mean)
    sizes = {**config["pretrained_cfg"], "input_size": [3, 288, 288], "crop_pct": 0.95}
    own = {"architecture": "resnet18d", "pretrained_cfg": sizes}
    server.commit("someone/own", {**files, "config.json": json.dumps(own).encode()})
    found = weights_conversion.hub_preprocessing("someone/own")
    assert (found.image_size, found.resize) == (288, 303)
    assert create_model(small_trunk, tasks=[], weights="hf-hub:someone/own")
    server.commit("someone/bare", {"model.safetensors": files["model.safetensors"]})
    assert create_model(small_trunk, tasks=[], weights="hf-hub:someone/bare")
    server.commit("someone/aa", {**files, "config.json": json.dumps({**own, "architecture": "resnetaa50"}).encode()})
    with pytest.raises(UserError, match="someone/aa: timm's resnetaa50 computes something else"):
        create_model(small_trunk, tasks=[], weights="hf-hub:someone/aa")
    server.commit("timm/resnet18.odd", {**files, "config.json": b"{}"})
    zero = {"pretrained_cfg": {**config["pretrained_cfg"], "std": [0, 1, 1]}}
    server.commit("timm/resnet18.zero", {**files, "config.json": json.dumps(zero).encode()})
    server.commit("timm/resnet18.large", {**files, "config.json": bytes(2**20 + 1)})
    server.commit("timm/resnet18.deep", {**files, "config.json": b"[" * 10**5})
    for weights, reason in (
        ("hf-hub:timm/resnet18.odd", "config.json does not say"),
        ("hf-hub:timm/resnet18.zero", "config.json does not say"),
        ("hf-hub:timm/resnet18.deep", "config.json does not say"),
        ("hf-hub:timm/resnet18.large", "larger than 1"),
        ("hf-hub:timm", "give owner/name"),
        ("hf-hub:timm/tf_efficientnet_b0", "pad in another way"),
        ("hf-hub:timm/tf_efficientnetv2_s.in1k", "pad in another way"),
        ("hf-hub:timm/efficientnetv2_rw_s.ra2_in1k", "efficientnetv2_rw_s computes something else"),
        ("hf-hub:timm/resnet18.none", "the server answered 401"),
    ):
        with pytest.raises(UserError, match=reason):
            ModelSpec.following(small_trunk, {"gender": ("a", "b")}, 32, "upright", weights)


def test_a_vision_transformer_is_made_for_the_size_of_its_weights(server, tiny_trunks, capsys):
    name = tiny_trunks["vit"]
    tensors = weights_conversion.to_torch(filled(abstract(get_architecture(name).build, image_size=48)))
    config = {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}}
    config["pretrained_cfg"]["input_size"] = [3, 48, 48]
    files = {"model.safetensors": safetensors.numpy.save(tensors), "config.json": json.dumps(config).encode()}
    server.commit("timm/vit_tiny_patch8_48.own", files)
    weights = "hf-hub:timm/vit_tiny_patch8_48.own"
    trunk = create_model(name, tasks=[], weights=weights).trunk
    np.testing.assert_array_equal(trunk.stem.positions[...], tensors["encoder.pos_embedding"])
    assert ModelSpec.following(name, {"gender": ("a", "b")}, 32, "upright", weights).made_for == 48
