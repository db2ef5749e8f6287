"""Options that would change nothing are refused, and values that are not taken as given are mentioned."""

from __future__ import annotations

import pytest

from facefeat_jax.cli import main


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
    import facefeat_jax.training.loop as loop

    class Stop(Exception):
        pass

    def stop(*_, **__):
        raise Stop

    monkeypatch.setattr(loop, "create_model", stop)
    with pytest.raises(Stop):
        train(capsys, avatars_dir, tmp_path, *SMALL, "--warmup-steps", "5")
    assert "warm-up: 3 steps in place of 5" in capsys.readouterr().err
    with pytest.raises(Stop):  # the recipe's own
        train(capsys, avatars_dir, tmp_path, *SMALL)
    assert "warm-up: 3 steps in place of 50" in capsys.readouterr().err
    with pytest.raises(Stop):
        train(capsys, avatars_dir, tmp_path, "--smoke", "--epochs", "9", "--warmup-steps", "100000")
    err = capsys.readouterr().err
    assert "--smoke takes --epochs 2 in place of 9" in err
    assert "--smoke takes --warmup-steps 2 in place of 100000" in err
    assert "--batch-size" not in err  # the recipe's own is what smoke is there to shrink
