"""A short sample of the campaign that kills training jobs; `make faults` runs all of it."""

from __future__ import annotations

import pytest

from faults import interruptions
from faults.workplace import HEADS


@pytest.mark.slow
def test_a_job_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_bits(tmp_path, avatars_dir):
    tally = interruptions.run(tmp_path, count=1, seed=4, options=HEADS, data=avatars_dir)
    assert (tally.tried, tally.survived, tally.failures) == (1, 1, [])
    assert tally.counts == {"SIGKILL during checkpoint": 1}
