"""What gives the answers for files, called from Python: with a model, without one, and for people."""

from __future__ import annotations

import json

import pytest

from facefeat_jax.avatars import draw
from facefeat_jax.commands import _predict
from facefeat_jax.prediction._answer_source import of_model, without_model
from facefeat_jax.prediction.boxes import read_boxes
from facefeat_jax.system.errors import UserError


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("source") / "a.png"
    draw(78, 0).image.save(path)
    return str(path)


def test_no_model_is_taken_where_no_file_can_be_opened(trained_run, picture, tmp_path):
    absent = [str(tmp_path / "absent.png"), str(tmp_path)]
    source = without_model(trained_run, absent)
    assert source is not None and source.tasks == ("gender", "glasses", "shirt")
    assert [answer.source for answer in source.stream(absent)] == absent
    assert all(answer.error and not answer.heads for answer in source.stream(absent))
    assert without_model(trained_run, [*absent, picture]) is None
    assert without_model(tmp_path, absent) is None  # whose heads are not known


def test_people_are_answered_for_where_there_are_boxes(trained_run, picture, tmp_path):
    (tmp_path / "boxes.csv").write_text(f"file,left,top,right,bottom\n{picture},0.2,0.2,0.6,0.6\n{picture},0,0,1,1\n")
    whole = of_model(trained_run, batch_size=4)
    people = of_model(trained_run, batch_size=4, boxes=read_boxes(tmp_path / "boxes.csv"))
    assert [len(list(source.stream([picture]))) for source in (whole, people)] == [1, 2]
    assert (whole.group, whole.tasks) == (4, people.tasks)
    about = json.loads(json.dumps(people.about()))
    assert about.pop("people").keys() == {"boxes"} and about == json.loads(json.dumps(whole.about()))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"images": ()}, "name the pictures"),
        ({"resume": True}, "name it with --out"),
        ({"out": "a.csv", "json": True}, "leave out --format and --json"),
        ({"boxes": "b.csv", "faces": True}, "give only one of them"),
        ({"faces": True, "explain": "maps"}, "--explain works on whole pictures"),
        ({"batch_size": 0}, "--batch-size must be 1 or more"),
    ],
)
def test_options_that_contradict_each_other_are_refused_before_a_run_is_looked_for(fields, reason, tmp_path):
    paths = {name: tmp_path / value if isinstance(value, str) else value for name, value in fields.items()}
    with pytest.raises(UserError, match=reason):
        _predict.run(_predict.Arguments(**{"run": tmp_path / "absent", "images": ("a.png",), **paths}))
