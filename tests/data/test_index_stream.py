"""The index stream: a function of the step number, every picture once a pass, short last batches padded."""

from __future__ import annotations

import numpy as np
import pytest

from facefeat_jax.data.index_stream import IndexStream, in_order


class Labels:
    """Labels without pictures: 10 of gender, 7 of glasses, none with both."""

    labels = {  # noqa: RUF012
        "gender": np.array([0, 1] * 5 + [-1] * 7),
        "glasses": np.array([-1] * 10 + [1] * 7),
    }

    def labelled(self, task):
        return np.flatnonzero(self.labels[task] >= 0)


def make(schedule="sequential", *, seed=0, epochs=3, batch_size=4):
    return IndexStream(
        Labels(), tasks=("gender", "glasses"), schedule=schedule, batch_size=batch_size, epochs=epochs, seed=seed
    )


def real(batches):
    return np.concatenate([batch.indices[batch.mask] for batch in batches])


def test_sequential_goes_through_each_tasks_pictures_once_an_epoch():
    stream = make()
    assert [(one.epoch, one.tasks, one.first_step, one.num_steps) for one in stream.passes] == [
        (epoch, task, 5 * epoch + first, steps)
        for epoch in range(3)
        for task, first, steps in ((("gender",), 0, 3), (("glasses",), 3, 2))
    ]
    assert len(stream) == 15
    for one in stream.passes:
        batches = [stream[step] for step in range(one.first_step, one.end_step)]
        assert {batch.tasks for batch in batches} == {one.tasks}
        np.testing.assert_array_equal(np.sort(real(batches)), Labels().labelled(one.tasks[0]))


def test_mixed_goes_through_all_pictures_once_an_epoch():
    stream = make("mixed")
    assert [one.num_steps for one in stream.passes] == [5, 5, 5]
    assert all(one.last_of_epoch for one in stream.passes)
    for one in stream.passes:
        batches = [stream[step] for step in range(one.first_step, one.end_step)]
        np.testing.assert_array_equal(np.sort(real(batches)), np.arange(17))


@pytest.mark.parametrize("schedule", ["sequential", "mixed"])
def test_a_step_is_the_same_whenever_and_in_whatever_order_it_is_asked_for(schedule):
    forwards = [make(schedule)[step] for step in range(15)]
    other = make(schedule)
    for step in reversed(range(15)):
        np.testing.assert_array_equal(other[step].indices, forwards[step].indices)
        np.testing.assert_array_equal(other[step].mask, forwards[step].mask)


def test_epochs_and_seeds_are_shuffled_differently():
    orders = []
    for seed in range(3):
        stream = make("mixed", seed=seed)
        orders += [tuple(real(stream[step] for step in range(5 * epoch, 5 * epoch + 5))) for epoch in range(3)]
    # Also: epoch 1 of seed 0 is not epoch 0 of seed 1, as it would be were the epoch added to the seed.
    assert len(set(orders)) == 9
    assert tuple(range(17)) not in orders


def test_short_batches_are_padded_with_a_picture_of_their_own_and_masked():
    last = make()[2]
    assert last.mask.tolist() == [True, True, False, False]
    assert set(last.indices[2:]) == {last.indices[0]}
    batches = in_order(np.arange(5, 11), ("gender",), 4)
    assert [batch.indices.tolist() for batch in batches] == [[5, 6, 7, 8], [9, 10, 9, 9]]
    assert batches[1].mask.tolist() == [True, True, False, False]


@pytest.mark.parametrize("steps_per_call", [1, 2, 3, 32])
def test_calls_take_every_step_once_and_stay_within_a_pass(steps_per_call):
    stream = make("mixed", epochs=2)  # 5 steps a pass
    calls = [call for one in stream.passes for call in one.calls(steps_per_call)]
    assert [step for call in calls for step in range(call.first_step, call.end_step)] == list(range(10))
    assert all(stream.pass_at(call.first_step) is stream.pass_at(call.end_step - 1) for call in calls)
    assert {call.num_steps for call in calls} <= {steps_per_call, 5 % steps_per_call, min(steps_per_call, 5)}


def test_batches_can_be_padded_to_more_than_their_size():
    stream = IndexStream(
        Labels(), tasks=("gender",), schedule="sequential", batch_size=4, epochs=1, seed=0, padded_size=6
    )
    assert [batch.mask.tolist() for batch in (stream[0], stream[2])] == [
        [True] * 4 + [False] * 2,
        [True] * 2 + [False] * 4,
    ]
    np.testing.assert_array_equal(np.sort(real(stream[step] for step in range(3))), np.arange(10))
