"""Options that would change nothing are refused, and values that are not taken as given are mentioned."""

from __future__ import annotations

import numpy as np
import pytest

from facefeat_jax import UserError, create_model
from facefeat_jax.cli import main
from facefeat_jax.commands import train as train_run
from facefeat_jax.runs.run_folder import open_run
from weights_conversion import to_torch, write

pytestmark = pytest.mark.long


def train(capsys, avatars_dir, tmp_path, *options):
    fields = ["--run", str(tmp_path / "run"), "--data-dir", str(avatars_dir), "--weights", "random"]
    code = main(["train", "avatars", *fields, *options])
    return code, capsys.readouterr().err


SMALL = ("--image-size", "32", "--batch-size", "8", "--epochs", "1")  # 44 pictures: 6 steps


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--learning-rate-schedule", "constant"), "--warmup-steps 50 needs a schedule"),
        (("--warmup-steps", "100"), "--warmup-steps 100 is not less than the 6 steps"),
        (("--warmup-steps", "0", "--tasks", "shirt", "--colour-jitter", "0.2"), "--colour-jitter"),
        (("--schedule", "sequential", "--balance", "0.5"), "--balance"),
        (("--heartbeat-s", "5"), "--heartbeat-s is for one of several processes"),
        (
            ("--dtype", "bfloat16", "--matmul-precision", "highest"),
            "--matmul-precision highest is for float32 products",
        ),
        (("--key", "state_dict_ema"), "--weights-key is for a file"),
    ],
)
def test_options_without_effect_are_refused_before_anything_is_trained(capsys, avatars_dir, tmp_path, options, reason):
    code, err = train(capsys, avatars_dir, tmp_path, *SMALL, *options)
    assert code == 2
    assert reason in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_warm_up_of_more_than_half_of_the_run_and_what_smoke_shrinks_are_mentioned(
    capsys, avatars_dir, tmp_path, monkeypatch
):
    import facefeat_jax.training._setup as setup

    class Stop(Exception):
        pass

    def stop(*_, **__):
        raise Stop

    monkeypatch.setattr(setup, "create_model", stop)
    with pytest.raises(Stop):
        train(capsys, avatars_dir, tmp_path, *SMALL, "--warmup-steps", "5")
    assert "warm-up: 3 steps instead of 5," in capsys.readouterr().err
    with pytest.raises(Stop):  # the recipe's own
        train(capsys, avatars_dir, tmp_path, *SMALL)
    assert "warm-up: 3 steps instead of 50," in capsys.readouterr().err
    with pytest.raises(Stop):
        train(capsys, avatars_dir, tmp_path, "--smoke", "--epochs", "9", "--warmup-steps", "100000")
    err = capsys.readouterr().err
    assert "--smoke uses --epochs 2 instead of 9" in err
    assert "--smoke uses --warmup-steps 2 instead of 100000" in err
    assert "--batch-size" not in err  # the recipe's own is what smoke is there to shrink


@pytest.mark.usefixtures("no_pages")
def test_what_the_chosen_feed_and_trunk_make_of_no_effect_is_mentioned(tiny, tmp_path, capsys):
    fields = {"epochs": 1, "limit": 8, "batch_norm": "frozen", "feed_threads": 2, "tasks": ("gender",)}
    train_run(tiny(tmp_path / "device", **fields))
    said = capsys.readouterr().err
    assert "--feed-threads: without effect, since the pictures lie on the device" in said and "prefetch" not in said
    assert "--batch-norm frozen: without effect, since all stages of the trunk are trained" in said
    train_run(tiny(tmp_path / "stream", **fields | {"feed": "stream", "trainable": ("none",)}))
    assert "without effect" not in capsys.readouterr().err


@pytest.mark.usefixtures("no_pages")
def test_of_several_sets_of_weights_training_begins_with_the_one_that_is_named(tiny, trained_run, tmp_path, capsys):
    """Nothing but the heads is trained, so that the run's own trunk shows with what it began."""
    plain = to_torch(open_run(trained_run).model)
    average = {name: value * 0.5 if value.ndim else value for name, value in plain.items()}
    file = tmp_path / "both.safetensors"
    write(file, {f"model.{n}": v for n, v in plain.items()} | {f"ema.{n}": v for n, v in average.items()})
    fields = {"epochs": 1, "limit": 8, "batch_norm": "frozen", "trainable": ("none",), "weights": str(file)}
    for key, expected in ((None, plain), ("ema", average)):
        run = tmp_path / f"run {key}"
        train_run(tiny(run, weights_key=key, **fields))
        found = to_torch(open_run(run).model)
        assert all(np.array_equal(found[name], expected[name]) for name in found if name.startswith("backbone"))
        said = capsys.readouterr().err
        assert ("using the weights under 'model', not their average under 'ema'" in said) == (not key)
        assert f"the names begin with {(key or 'model') + '.'!r}" in said
    # Going on does not read the file again.
    file.unlink()
    train_run(tiny(run, weights_key="ema", resume=True, **fields))
    with pytest.raises(UserError, match="weights_key is for a file of weights"):
        create_model("resnet18", weights=None, weights_key="ema")
