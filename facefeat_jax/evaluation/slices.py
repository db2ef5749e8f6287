"""The results of each head on groups of pictures: by groups in the data set, and by predictions of the other heads.

Groups come from the data set (race, age), from its labels (gender is a group for the glasses head where both are
labelled, and for its own head), and, where a data set knows nothing of an attribute, from the prediction of the head
for it. The last are marked: such a group is what a model predicts, mistakes included.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from facefeat_jax.data.examples import IDENTITY, UNKNOWN
from facefeat_jax.evaluation._bootstrap import Interval, percentile_interval, resampled_shares, share_interval
from facefeat_jax.evaluation.answers import Answers
from facefeat_jax.evaluation.calibration import HeadCalibration
from facefeat_jax.evaluation.metrics import losses, predicted, probabilities

LEAST = 20
"""Pictures that a group must have to be compared with others; smaller groups are shown."""

MAX_VALUES = 40
"""A group with more values than this is no group (file names, numbers of persons)."""

_SHUFFLES = 300
_ROUNDING = 1e-6  # of shares in float32: the same gap is not larger than itself
_MOSTLY_UNKNOWN = 0.5  # beyond this share of blanks, the other head's prediction is looked at as well


@dataclass(frozen=True)
class Slice:
    """The results of a head on the pictures of one group.

    Attributes:
      value: the group, such as `White`, or `White, 20-29` of a crossing.
      n: number of pictures.
      accuracy: share that is right; None where there is no picture.
      interval: 95% interval of the accuracy.
      balanced_accuracy: mean over the classes that the group has; None without a picture.
      loss: mean; None without a picture.
      confidence: mean probability of the answers; above the accuracy, the head is overconfident there.
      small: whether it has fewer than `LEAST` pictures and is not compared.
      coverage: how many get an answer; None where the head has no threshold for `unsure`, or no picture is left that
        the threshold was not fitted on.
    """

    value: str
    n: int
    accuracy: float | None
    interval: Interval | None
    balanced_accuracy: float | None
    loss: float | None
    confidence: float | None
    small: bool
    coverage: GroupCoverage | None = None


@dataclass(frozen=True)
class GroupCoverage:
    """The answers of a head on a group, of pictures that its threshold was not fitted on.

    Attributes:
      n: number of pictures.
      share: share that gets an answer; of the others the head is unsure.
      interval: 95% interval of that share.
      accuracy: share of the answers that is right; None where there is none.
      accuracy_interval: its 95% interval.
    """

    n: int
    share: float
    interval: Interval
    accuracy: float | None
    accuracy_interval: Interval | None


class Compared:
    """What is asked of a gap between groups, whatever share of them it is about."""

    gap: float | None
    gap_interval: Interval | None
    gap_by_chance: float | None

    @property
    def beyond_chance(self) -> float:
        """The gap divided by the gap by chance; 0 without a gap."""
        return (self.gap or 0.0) / self.gap_by_chance if self.gap_by_chance else 0.0

    @property
    def exceeds_chance(self) -> bool:
        """Whether the gap is larger than the gap by chance."""
        return self.gap is not None and self.gap_by_chance is not None and self.gap > self.gap_by_chance + _ROUNDING


@dataclass(frozen=True)
class Gap(Compared):
    """The largest difference of a share between groups that are not small.

    Attributes:
      lowest: the group with the lowest share.
      highest: the group with the highest.
      gap: difference of their shares.
      gap_interval: 95% interval of the difference of these two groups.
      gap_by_chance: 95 of 100 random assignments to groups give a smaller gap. A gap below it means nothing.
    """

    lowest: str
    highest: str
    gap: float
    gap_interval: Interval
    gap_by_chance: float


@dataclass(frozen=True)
class Slicing(Compared):
    """The results of a head on each group of one kind.

    Attributes:
      head: the head.
      by: the kind, such as `race`, `predicted glasses`, or `race × age`.
      predicted: whether a part of it is the prediction of another head, rather than known.
      slices: the groups, in the order of their names.
      unknown: pictures of which the group is not known; they are in no slice.
      lowest: the group with the lowest accuracy, of those that are not small; None where fewer than two are left.
      highest: the group with the highest.
      gap: difference of their accuracies.
      gap_interval: 95% interval of the difference of these two groups.
      gap_by_chance: 95 of 100 random assignments to groups give a smaller gap. A gap below it means nothing.
      notes: remarks for the reader.
      coverage: the largest gap between the groups' `GroupCoverage.share`; None where fewer than two can be compared.
    """

    head: str
    by: str
    predicted: bool
    slices: tuple[Slice, ...]
    unknown: int
    lowest: str | None = None
    highest: str | None = None
    gap: float | None = None
    gap_interval: Interval | None = None
    gap_by_chance: float | None = None
    notes: tuple[str, ...] = field(default=())
    coverage: Gap | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Grouping:
    """A kind of groups: its values, and which of them each picture has (`UNKNOWN`: not known)."""

    name: str
    values: tuple[str, ...]
    numbers: np.ndarray
    predicted: bool = False


def slice_head(
    answers: Answers,
    task: str,
    *,
    crossings: bool = True,
    calibration: HeadCalibration | None = None,
    fitted: np.ndarray | None = None,
    withheld: np.ndarray | None = None,
) -> tuple[list[Slicing], list[str]]:
    """Returns how a head does on the groups of its labelled pictures, and what is left out of that.

    Args:
      answers: answers of all heads.
      task: the head.
      crossings: whether to look at each two kinds of groups together as well.
      calibration: the head's; with a threshold in it, the coverage of each group is looked at.
      fitted: which pictures it was fitted on, bool `[n]`; the coverage is that of the others. None: on none of them.
      withheld: for which pictures the head withholds its answer whatever the threshold says, bool `[n]`.
    """
    known = answers.labels[task] != UNKNOWN
    answers = answers.select(known)
    fitted, withheld = (None if rows is None else rows[known] for rows in (fitted, withheld))
    groupings, notes = _groupings(answers, task)
    head = _Head(answers, task, calibration, fitted, withheld)
    found = [_slicing(head, grouping) for grouping in groupings]
    if crossings and len(answers) >= 2 * LEAST:
        for first, second in itertools.combinations(groupings, 2):
            if first.predicted and second.predicted:
                continue  # what two heads say of pictures of which neither is known
            found.append(_slicing(head, _crossed(first, second)))
    return found, notes


def known_groups(answers: Answers, task: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields the groups of a head's labelled pictures that the data know: kind, value, and the pictures' numbers.

    Groups of fewer than `LEAST` pictures, and those that another head predicts, are left out.
    """
    labelled = np.flatnonzero(answers.labels[task] != UNKNOWN)
    for grouping in _groupings(answers.select(labelled), task)[0]:
        for number, value in enumerate(() if grouping.predicted else grouping.values):
            rows = labelled[grouping.numbers == number]
            if len(rows) >= LEAST:
                yield grouping.name, value, rows


def _groupings(answers: Answers, task: str) -> tuple[list[_Grouping], list[str]]:
    groupings, notes = [], []
    known: dict[str, float] = {}
    for name in (*answers.groups, *answers.classes):
        if name == IDENTITY or name in known:
            continue
        grouping = _known(answers, name)
        share = float(np.mean(grouping.numbers != UNKNOWN)) if len(answers) else 0.0
        if not share:
            continue
        known[name] = share
        if len(grouping.values) > MAX_VALUES:
            notes.append(f"{name}: {len(grouping.values)} different values are too many for groups")
        elif len(grouping.values) < 2:
            notes.append(f"{name}: all pictures with a value are {grouping.values[0]}")
        else:
            groupings.append(grouping)
    for other in answers.classes:
        if other != task and known.get(other, 0.0) < _MOSTLY_UNKNOWN:
            numbers = predicted(answers.logits[other])
            groupings.append(_Grouping(f"predicted {other}", answers.classes[other], numbers, predicted=True))
    return groupings, notes


def _known(answers: Answers, name: str) -> _Grouping:
    """Returns what the data sets know under a name: labels of the head of that name, or a group, or both."""
    texts = answers.groups.get(name, np.full(len(answers), "")).astype(object)
    classes: Sequence[str] = ()
    if name in answers.classes:
        classes = answers.classes[name]
        labels = answers.labels[name]
        texts = np.where(labels == UNKNOWN, texts, np.array(classes, object)[np.maximum(labels, 0)])
    values = [*classes, *sorted({text for text in texts.tolist() if text and text not in classes})]
    # Classes of a head that no picture has and no group knows are empty slices; they are shown as such.
    place = {"": UNKNOWN, **{value: number for number, value in enumerate(values)}}
    return _Grouping(name, tuple(values), np.array([place[text] for text in texts.tolist()], int))


def _crossed(first: _Grouping, second: _Grouping) -> _Grouping:
    both = (first.numbers != UNKNOWN) & (second.numbers != UNKNOWN)
    numbers = np.where(both, first.numbers * len(second.values) + second.numbers, UNKNOWN)
    values = tuple(f"{a}, {b}" for a in first.values for b in second.values)
    return _Grouping(f"{first.name} × {second.name}", values, numbers, first.predicted or second.predicted)


class _Head:
    """What one head says of its labelled pictures, in the form that slices are cut from."""

    def __init__(
        self,
        answers: Answers,
        task: str,
        calibration: HeadCalibration | None,
        fitted: np.ndarray | None,
        withheld: np.ndarray | None,
    ):
        logits, labels = answers.logits[task], answers.labels[task]
        self.task = task
        self.labels = labels
        self.units = answers.units
        self.right = predicted(logits) == labels
        self.loss = losses(logits, labels)
        self.confidence = probabilities(logits).max(axis=1)
        self.shuffled = _shuffled(self.right)
        # The pictures on which coverage is looked at; none where the head is never, or always, unsure.
        self.checked = np.zeros(len(labels), bool)
        if calibration is not None and not calibration.never_sure and (calibration.threshold or withheld is not None):
            self.answered = ~calibration.unsure(probabilities(logits / calibration.temperature).max(axis=1))
            if withheld is not None:
                self.answered &= ~withheld
            self.checked = np.ones(len(labels), bool) if fitted is None else ~fitted
            self.shuffled_answered = _shuffled(self.answered[self.checked])

    def slice(self, value: str, rows: np.ndarray, seed: int) -> tuple[Slice, np.ndarray]:
        """Returns how it does on the pictures of those numbers, and the accuracies of resamples."""
        right, labels = self.right[rows], self.labels[rows]
        accuracy = float(right.mean())
        shares, units = resampled_shares(right, self.units[rows], seed=seed)
        hits = np.bincount(labels, right) / np.maximum(np.bincount(labels), 1)
        group = Slice(
            value,
            len(rows),
            accuracy,
            share_interval(shares, accuracy, units),
            float(hits[np.unique(labels)].mean()),
            float(self.loss[rows].mean()),
            float(self.confidence[rows].mean()),
            len(rows) < LEAST,
        )
        return group, shares

    def coverage(self, rows: np.ndarray, seed: int) -> tuple[GroupCoverage, np.ndarray] | None:
        """Returns the coverage of the pictures of those numbers, and that of resamples; None without such a picture."""
        rows = rows[self.checked[rows]]
        if not len(rows):
            return None
        answered = self.answered[rows]
        share = float(answered.mean())
        shares, units = resampled_shares(answered, self.units[rows], seed=seed)
        interval, right = share_interval(shares, share, units), self.right[rows[answered]]
        if not len(right):
            return GroupCoverage(len(rows), share, interval, None, None), shares
        accuracy = float(right.mean())
        hits, units = resampled_shares(right, self.units[rows[answered]], seed=seed)
        return GroupCoverage(len(rows), share, interval, accuracy, share_interval(hits, accuracy, units)), shares


def _shuffled(hits: np.ndarray) -> np.ndarray:
    """Returns hits and misses dealt out anew, float32 `[_SHUFFLES, n]`: the same for all kinds of groups."""
    random = np.random.RandomState(0)
    return np.stack([random.permutation(hits) for _ in range(_SHUFFLES)]).astype(np.float32)


def _slicing(head: _Head, grouping: _Grouping) -> Slicing:
    slices: list[Slice] = []
    drawn, drawn_coverage = {}, {}
    for number, value in enumerate(grouping.values):
        rows = np.flatnonzero(grouping.numbers == number)
        if not len(rows):
            slices.append(Slice(value, 0, None, None, None, None, None, small=True))
            continue
        group, drawn[number] = head.slice(value, rows, seed=number)
        if found := head.coverage(rows, seed=number):
            group = replace(group, coverage=found[0])
            drawn_coverage[number] = found[1]
        slices.append(group)
    unknown = int(np.sum(grouping.numbers == UNKNOWN))
    notes = []
    if unknown:
        notes.append(f"{unknown:,} of {len(head.labels):,} pictures have no value for {grouping.name}")
    accuracies = {
        number: group.accuracy for number, group in enumerate(slices) if group.accuracy is not None and not group.small
    }
    coverages = {
        number: group.coverage.share
        for number, group in enumerate(slices)
        if group.coverage is not None and group.coverage.n >= LEAST
    }
    gap = _gap(accuracies, drawn, grouping.values, head.shuffled, grouping.numbers)
    coverage = None
    if coverages:
        numbers = grouping.numbers[head.checked]
        coverage = _gap(coverages, drawn_coverage, grouping.values, head.shuffled_answered, numbers)
    if gap is None:
        notes.append(f"fewer than two groups have {LEAST} pictures or more: nothing to compare")
    return Slicing(
        head.task,
        grouping.name,
        grouping.predicted,
        tuple(slices),
        unknown,
        **(asdict(gap) if gap else {}),
        notes=tuple(notes),
        coverage=coverage,
    )


def _gap(
    shares: Mapping[int, float],
    drawn: Mapping[int, np.ndarray],
    values: Sequence[str],
    shuffled: np.ndarray,
    numbers: np.ndarray,
) -> Gap | None:
    """Returns the largest gap between groups; None where fewer than two are compared.

    Args:
      shares: of the groups that are compared, by their number.
      drawn: shares of resamples, by the number of the group.
      values: names of the groups.
      shuffled: as `_shuffled` makes them.
      numbers: of the group of each picture, `[n]`.
    """
    if len(shares) < 2:
        return None
    lowest, highest = min(shares, key=lambda number: shares[number]), max(shares, key=lambda number: shares[number])
    low, high = percentile_interval(drawn[highest] - drawn[lowest])
    by_chance = _gap_by_chance(shuffled, numbers, list(shares))
    return Gap(values[lowest], values[highest], shares[highest] - shares[lowest], (float(low), float(high)), by_chance)


def _gap_by_chance(shuffled: np.ndarray, numbers: np.ndarray, compared: Sequence[int]) -> float:
    """Returns what 95 of 100 gaps stay below where hits are dealt out at random: what groups of these sizes make."""
    members = (numbers[:, None] == np.array(compared)).astype(np.float32)
    shares = (shuffled @ members) / members.sum(axis=0)
    return float(np.quantile(np.ptp(shares, axis=1), 0.95))
