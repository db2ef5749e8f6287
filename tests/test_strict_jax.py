"""The product under JAX's strictest settings, which a user's program may have set for the whole process.

Nothing broadcasts to another rank by itself, no dtypes are mixed, and nothing is sent to the device or fetched from it
unasked. (On CPU, JAX stops only what is sent.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest

from facefeat_jax import cli
from facefeat_jax.commands import train

pytestmark = pytest.mark.long

STRICT = {
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_transfer_guard": "disallow",
}


@pytest.fixture
def strict() -> Iterator[None]:
    """Sets them for all threads, as the variables of the environment do."""
    before = {name: jax.config.values[name] for name in STRICT}
    try:
        for name, value in STRICT.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_settings_are_in_force(strict) -> None:
    numbers = jax.device_put(np.ones((2, 3), np.float32))
    with pytest.raises(Exception, match="Disallowed host-to-device"):
        jax.numpy.add(numbers, np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="rank_promotion"):
        numbers + jax.device_put(np.ones(3, np.float32))
    with pytest.raises(Exception, match="dtype promotion path"):
        numbers + jax.device_put(np.ones((2, 3), np.int32))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "fields",
    [
        dict(
            feed="device",
            learning_rate_schedule="cosine",
            warmup_steps=2,
            weight_decay=0.01,
            ema=0.9,
            crop=0.1,
            rand_augment=9,
            mixup=0.2,
            cutmix=1.0,
            layer_decay=0.8,
            unfreeze_every=2,
        ),
        dict(feed="stream", trainable=("layer4",), batch_norm="frozen", cache_prefix=True, dtype="bfloat16"),
    ],
    ids=["device", "prefix"],
)
def test_train_resume_evaluate_and_predict(tiny, strict, tmp_path: Path, capsys, fields: dict) -> None:
    run, picture = tmp_path / "run", tmp_path / "grey.png"
    PIL.Image.new("RGB", (40, 40), (90, 120, 150)).save(picture)
    config = tiny(run, epochs=1, limit=20, tasks=("shirt",), **fields)
    train(config)
    train(config.replace(resume=True))  # the checkpoint is restored
    assert (run / "report.html").exists()
    assert cli.main(["evaluate", str(run)]) == 0
    capsys.readouterr()
    assert cli.main(["predict", str(run), str(picture), "--explain", str(tmp_path / "maps"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "shirt" in json.dumps(answer)
    assert list((tmp_path / "maps").iterdir())
