"""`predict --out-folder`: a file of answers for each shard, the same bytes whoever answers it and however often."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from facefeat_jax.cli import main
from facefeat_jax.commands._options import parse
from facefeat_jax.commands._predict import Arguments
from facefeat_jax.shards import _storage
from facefeat_jax.shards.run import share
from facefeat_jax.system.errors import UserError

from ..made import encoded, noise

FACEFEAT = [sys.executable, "-c", "import sys; from facefeat_jax.cli import main; sys.exit(main(sys.argv[1:]))"]


def write_tar(file: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [encoded(noise(40, 50, number)) for number in range(5)]


@pytest.fixture
def data(tmp_path, pictures) -> Path:
    """A folder of shards: two tar files with the same five pictures and one that is none, and a table of three."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a.tar", "b.tar"):
        files = {f"{number}.png": content for number, content in enumerate(pictures)}
        write_tar(folder / name, {**files, "bad.png": b"no picture", "labels.json": b"{}"})
    rows = [{"bytes": content, "path": f"{number}.png"} for number, content in enumerate(pictures[:3])]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows, "other": [1, 2, 3]}), folder / "sub.parquet")
    return folder


@pytest.fixture
def call(exported, tmp_path, capsys):
    def predict(*words: object, code: int = 0, out: str = "out") -> str:
        """Runs the command in this process and returns what it says, without the line of the whole."""
        given = [str(exported / "model.onnx"), *map(str, words), "--out-folder", str(tmp_path / out)]
        assert main(["predict", *given]) == code
        return capsys.readouterr().err

    return predict


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_kind_of_shard_is_answered_as_predict_answers_its_pictures(
    call, data, exported, tmp_path, pictures, capsys
):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, content in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(content)
    call(data, folder, "--shard-size", 3, "--format", "jsonl", code=2)
    call(data, folder, "--shard-size", 3, out="tables", code=2)
    stems = ["a", "b", "photos-00000-of-00002", "photos-00001-of-00002", "sub"]
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.jsonl")) == stems
    assert main(["predict", str(exported / "model.onnx"), str(folder), "--format", "jsonl"]) == 0
    expected = [json.loads(line)["heads"] for line in capsys.readouterr().out.splitlines()]
    for stem, first, number in (
        ("a", 0, 5),
        ("photos-00000-of-00002", 0, 3),
        ("photos-00001-of-00002", 3, 2),
        ("sub", 0, 3),
    ):
        rows = [json.loads(line) for line in (tmp_path / "out" / f"{stem}.jsonl").read_text().splitlines()]
        table = pyarrow.parquet.read_table(tmp_path / "tables" / f"{stem}.parquet").to_pylist()
        assert [row["row"] for row in rows] == [row["row"] for row in table] == list(range(len(rows)))
        for place in range(number):
            wanted = expected[first + place]
            assert rows[place]["file"] == table[place]["file"] == f"{first + place}.png"
            for task, head in wanted.items():
                found = rows[place]["heads"][task]
                assert found["label"] == table[place][task] == head["label"]
                assert found["probability"] == table[place][f"{task}_probability"]
                assert abs(found["probability"] - head["probability"]) < 1e-6
    assert rows[0]["shard"] == "sub.parquet"
    # What reads a folder of tables passes over what describes them.
    assert pyarrow.parquet.read_table(tmp_path / "tables").num_rows == 2 * 6 + 5 + 3


def test_workers_share_the_shards_and_a_shard_that_is_done_stays(call, data, tmp_path, monkeypatch):
    call(data, out="whole", code=2)
    whole = contents(tmp_path / "whole")
    call(data, "--num-workers", 2, "--worker-index", 1, code=2)
    assert contents(tmp_path / "out").keys() == {"_about.json", "_source.json", "b.parquet"}
    stamp = (tmp_path / "out" / "b.parquet").stat().st_mtime_ns
    (tmp_path / "out" / ".a.parquet.0123abcd.tmp").write_bytes(b"of a worker that was killed")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    said = call(data, "--num-workers", 2, code=2)
    assert "worker 0 of 2 (they count from 0): 2 of 3 shards" in said
    assert contents(tmp_path / "out") == whole
    said = call(data)
    assert "0 pictures of 0 shards" in said and "3 shards had theirs" in said
    assert (tmp_path / "out" / "b.parquet").stat().st_mtime_ns == stamp


def test_a_shard_that_cannot_be_read_gets_a_line_and_the_others_their_answers(call, data, tmp_path):
    content = (data / "a.tar").read_bytes()
    end = content.rstrip(b"\0").rfind(b"{}") // 512 * 512 + 512
    table = (data / "sub.parquet").read_bytes()
    for bad, why in (
        (content[: len(content) // 2], "unexpected end of data"),
        (content[:end], "cut short"),
        (gzip.compress(content), ""),
        (b"", "empty"),
    ):
        (data / "a.tar").write_bytes(bad)
        (data / "sub.parquet").write_bytes(table[: len(table) // 2])
        lines = call(data, code=2).splitlines()
        assert sum("a.tar can't be read" in line and why in line for line in lines) == 1, lines
        assert sum("sub.parquet can't be read" in line for line in lines) == 1
        assert not (tmp_path / "out" / "a.parquet").exists() and (tmp_path / "out" / "b.parquet").exists()
        assert not list((tmp_path / "out").glob(".*"))
    (data / "a.tar").write_bytes(content)
    (data / "sub.parquet").write_bytes(table)
    call(data, code=2)
    assert len(contents(tmp_path / "out")) == 5


def test_what_does_not_fit_is_refused_in_a_line_and_nothing_is_written(call, data, exported, tmp_path, monkeypatch):
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    picture = exported / "0.png"
    (data / "deep").mkdir()
    write_tar(data / "deep" / "a.tar", {})
    for words, reason in (
        ((data / "none.tar",), "there is no such file or folder"),
        ((f"{data}/*.zip",), "no file or folder fits this pattern"),
        ((picture,), "a shard is a .tar or .parquet file or a folder"),
        ((data / "a.tar", data / "deep" / "a.tar"), "would all be answered in a.parquet"),
        ((tmp_path,), "lies in"),
        ((data / "sub.parquet", "--image-column", "other"), "'other' holds no bytes"),
        ((data / "sub.parquet", "--image-column", "nothing"), "'nothing' is not there"),
        ((data, "--num-workers", 2), "needs --worker-index"),
        ((data, "--num-workers", 2, "--worker-index", 2), "there are 2 workers, numbered from 0"),
        ((data, "--worker-index", 0), "give --num-workers as well"),
        ((data, "--format", "csv"), "--out-folder writes parquet or jsonl"),
        ((data, "--format", "json"), "got --format json"),
        ((data, "--every", 3), "--every does not go with --out-folder"),
        ((data, "--resume"), "--resume does not go with --out-folder"),
        ((data, "--num-workers", 0, "--ray", "127.0.0.1:1"), "--num-workers must be 1 or more, got 0"),
        ((data, "--explain", tmp_path / "x"), "--explain does not go with --out-folder"),
        ((data, "--ray", "127.0.0.1:1"), "no Ray cluster at 127.0.0.1:1"),
        ((data, "--ray", "nonsense"), "give host:port"),
        (("https://example.org/a.tar",), "not behind https"),
        (("nothing://a/b.tar",), "not known"),
    ):
        lines = call(*words, code=2).splitlines()
        assert any(reason in line for line in lines), (words, lines)
        assert len(lines) == 1 and not (tmp_path / "out").exists(), lines
    assert main(["predict", str(exported / "model.onnx"), str(picture), "--num-workers", "2"]) == 2


def test_the_answers_of_another_model_or_of_other_pictures_are_not_joined(
    call, data, exported, tmp_path, pictures, capsys
):
    call(data, code=2)
    before = contents(tmp_path / "out")
    assert "another batch size" in call(data, "--batch-size", 7, code=2)
    about = tmp_path / "out" / "_about.json"
    about.write_text(about.read_text().replace('"model": "', '"model": "0'))
    assert "another model" in call(data, code=2)
    about.write_text("{")
    assert "is damaged" in call(data, code=2)
    about.write_bytes(before["_about.json"])
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "1.png").write_bytes(pictures[0])
    call(folder)
    (folder / "0.png").write_bytes(pictures[1])
    assert "another set of pictures in photos" in call(folder, code=2)
    # Another set of the same names; a part of the same set, as a worker may be given, is none.
    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    (other / "1.png").write_bytes(pictures[2])
    assert "another source" in call(other, code=2)
    write_tar(tmp_path / "other" / "a.tar", {"0.png": pictures[2]})
    assert "another source" in call(tmp_path / "other" / "a.tar", code=2)
    call(f"{data}/*.parquet")
    assert "another folder given is called photos" in call(folder, other, out="fresh", code=2)
    assert contents(tmp_path / "out").items() >= before.items()


def test_parts_of_another_size_are_not_joined(call, tmp_path, pictures):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.png").write_bytes(pictures[number % 5])
    call(folder, "--shard-size", 3)
    (tmp_path / "out" / "photos-00001-of-00003.parquet").unlink()
    before = contents(tmp_path / "out")
    for size in (2, 4):
        assert "another shard size" in call(folder, "--shard-size", size, code=2)
    assert contents(tmp_path / "out") == before
    call(folder, "--shard-size", 3)
    assert pyarrow.parquet.read_table(tmp_path / "out").num_rows == 7


def test_a_damaged_header_and_a_failed_read_leave_no_answers(call, data, tmp_path, monkeypatch):
    path = data / "a.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    path.write_bytes(whole[: second + 5] + bytes([whole[second + 5] ^ 1]) + whole[second + 6 :])
    assert "a.tar can't be read (damaged or cut short)" in call(path, code=2)
    path.write_bytes(whole)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, start: pread(file, size, start)[: size - (start < second)])
    assert "a.tar can't be read (unexpected end of data)" in call(path, code=2)

    def fails(*_: object, **__: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fails)
    assert "a.tar can't be read (Input/output error)" in call(path, code=2)
    monkeypatch.setattr("facefeat_jax.prediction._inputs.read_regular", fails)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_bytes(b"")
    assert "Input/output error" in call(tmp_path / "photos", code=2)
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_what_fails_while_it_answers_is_not_called_a_fault_of_the_output(tmp_path):
    def fails(_: object) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        _storage.write(_storage.place(str(tmp_path / "out.parquet")), fails)
    assert not list(tmp_path.iterdir())


def test_a_column_of_numbers_or_of_pictures_gives_no_names(call, tmp_path, pictures):
    table = pyarrow.table({"file": pictures[:2], "path": [7, 8], "key": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    call(tmp_path / "t.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "out" / "t.parquet")["file"].to_pylist() == ["a", "b"]


def test_ray_without_an_address_is_this_machine():
    words = ["run", "data", "--out-folder", "out", "--ray"]
    assert parse(Arguments, "predict", words).ray == parse(Arguments, "predict", [*words, "--faces"]).ray == "local"
    assert parse(Arguments, "predict", [*words, "host:6379"]).ray == "host:6379"


def test_which_share_a_worker_takes():
    assert share(None, None, {"SLURM_ARRAY_TASK_ID": "3"}) == (0, 1)  # as nothing was asked for
    assert share(None, 8, {"SLURM_ARRAY_TASK_ID": "3"}) == (3, 8)
    assert share(None, 8, {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1"}) == (2, 8)
    assert share(None, 8, {"JOB_COMPLETION_INDEX": "7"}) == (7, 8)
    assert share(5, 8, {"JOB_COMPLETION_INDEX": "7"}) == (5, 8)
    with pytest.raises(UserError, match="must be 1 or more"):
        share(0, 0, {})


def start(model: Path, data: Path, out: Path, index: int, number: int) -> subprocess.Popen:
    words = ["predict", model, data, "--out-folder", out, "--worker-index", index, "--num-workers", number]
    return subprocess.Popen([*FACEFEAT, *map(str, words)], stderr=subprocess.DEVNULL)


def test_killed_while_it_writes_a_worker_leaves_no_half_shard(call, exported, tmp_path, pictures):
    data = tmp_path / "data"
    data.mkdir()
    for name in "abcd":
        write_tar(data / f"{name}.tar", {f"{n}.png": pictures[n % 5] for n in range(300)})
    worker = start(exported / "model.onnx", data, tmp_path / "out", 0, 1)
    while not (tmp_path / "out" / "a.parquet").exists() and worker.poll() is None:
        time.sleep(0.002)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    left = contents(tmp_path / "out")
    assert "d.parquet" not in left
    call(data)
    call(data, out="whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert contents(tmp_path / "out").items() >= {k: v for k, v in left.items() if not k.startswith(".")}.items()


@pytest.mark.slow
def test_twenty_kills_at_random_change_no_byte(call, exported, tmp_path, pictures):
    data = tmp_path / "data"
    data.mkdir()
    for name in range(12):
        write_tar(data / f"{name:02}.tar", {f"{n}.png": pictures[n % 5] for n in range(400)})
    call(data, out="whole")
    whole = contents(tmp_path / "whole")
    chance = random.Random(0)
    for _ in range(20):
        workers = [start(exported / "model.onnx", data, tmp_path / "out", index, 4) for index in range(4)]
        time.sleep(chance.uniform(1, 6))
        for worker in workers:
            worker.kill()
            worker.wait()
        found = contents(tmp_path / "out") if (tmp_path / "out").exists() else {}
        assert whole.items() >= {name: data for name, data in found.items() if not name.startswith(".")}.items()
    workers = [start(exported / "model.onnx", data, tmp_path / "out", index, 4) for index in range(4)]
    assert [worker.wait() for worker in workers] == [0, 0, 0, 0]
    assert contents(tmp_path / "out") == whole


@pytest.mark.slow
def test_object_storage_holds_the_same(call, data, exported, tmp_path, monkeypatch, capsys):
    """Against moto's server: shards from there and answers to there, skipped when they are there."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in (
            ("AWS_ENDPOINT_URL", address),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        for name in ("a.tar", "b.tar", "sub.parquet"):
            client.upload_file(str(data / name), "bucket", f"data/{name}")
        for number in range(3):
            client.upload_file(str(exported / f"{number}.png"), "bucket", f"photos/{number}.png")
        call(data, "s3://bucket/photos", code=2)
        local = contents(tmp_path / "out")
        given = ["predict", str(exported / "model.onnx"), "s3://bucket/data", "s3://bucket/photos"]
        given += ["--out-folder", "s3://bucket/answers"]
        assert main([*given, "--num-workers", "2", "--worker-index", "1"]) == 2
        assert main(given) == 2
        capsys.readouterr()
        assert main(given) == 0
        assert "4 shards had theirs" in capsys.readouterr().err
        found = client.list_objects_v2(Bucket="bucket", Prefix="answers/")["Contents"]
        stored = {
            item["Key"].removeprefix("answers/"): client.get_object(Bucket="bucket", Key=item["Key"])["Body"].read()
            for item in found
        }
        assert b"s3://bucket/data" in stored.pop("_source.json") and local.pop("_source.json")
        assert stored == local
        for words, reason in (
            (["s3://bucket/nothing.tar"], "there is no such file or folder"),
            (["s3://missing/data"], "s3://missing"),
        ):
            assert main(["predict", given[1], *words, *given[-2:]]) == 2
            assert reason in capsys.readouterr().err
    finally:
        server.stop()


@pytest.mark.slow
def test_ray_gives_the_same_bytes(call, data, exported, tmp_path):
    pytest.importorskip("ray")

    def on_ray() -> list[str]:
        words = ["predict", "model.onnx", data, "--out-folder", tmp_path / "out", "--ray"]
        done = subprocess.run([*FACEFEAT, *map(str, words)], cwd=exported, capture_output=True, text=True, timeout=300)
        assert done.returncode == 2, done.stderr
        return [line for line in done.stderr.splitlines() if "Set ray log level" not in line]  # Ray's own

    call(data, out="whole", code=2)
    said = on_ray()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(said) == 2 and said[0].startswith("wrote the answers for 15 pictures of 3 shards"), said
    (tmp_path / "out" / "_about.json").write_text("{}")
    (line,) = on_ray()
    assert "were made with another" in line
