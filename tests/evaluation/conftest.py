"""Answers made by hand, for the tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from facefeat_jax.evaluation.answers import Answers

CLASSES = {"gender": ("female", "male"), "glasses": ("no_glasses", "glasses"), "shirt": ("black", "blue", "red")}


@pytest.fixture
def made_answers() -> Callable[..., Answers]:
    """Returns a function that makes answers of `n` pictures: labels of gender on all, of shirt on none.

    The gender head is right on all pictures but the share `wrong` of those of group race = Blue.
    """

    def make(n: int = 400, *, wrong: float = 0.4, seed: int = 0, **changes) -> Answers:
        random = np.random.RandomState(seed)
        gender = random.randint(0, 2, n)
        race = np.array(["Blue", "Green"])[random.randint(0, 2, n)]
        missed = (race == "Blue") & (random.rand(n) < wrong)
        logits = {
            "gender": (np.where(gender ^ missed, 1.0, -1.0) * random.uniform(0.5, 3, n))[:, None],
            "glasses": random.normal(size=(n, 1)),
            "shirt": random.normal(size=(n, 3)),
        }
        unknown = np.full(n, -1)
        fields = {
            "classes": CLASSES,
            "logits": logits,
            "labels": {"gender": gender, "glasses": unknown, "shirt": unknown},
            "groups": {"race": race},
            "names": np.array([f"made/val: {number}.png" for number in range(n)]),
            "units": np.array([f"made: {number}.png" for number in range(n)]),
        }
        return Answers(**{**fields, **changes})

    return make
