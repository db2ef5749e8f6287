"""The table of attributes to detect. Models, data, training, evaluation and prediction read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from facefeat_jax.system import kinds
from facefeat_jax.system.errors import UserError, unknown
from facefeat_jax.system.kinds import FrameName

__all__ = ["BASELINE_TASKS", "NOTEBOOK_SHIRT_CLASSES", "SHIRT_CLASSES", "TASKS", "Task", "add_task", "get_task"]


@dataclass(frozen=True)
class Task:
    """One attribute, predicted by one head.

    Attributes:
      name: name of the head in the model, in logs and in `results.json`.
      classes: class names in label order. Two classes make a binary task with a single logit, for which
        `classes[1]` is the positive class; more make a multiclass task with a logit per class.
      source: the data set (a name in `facefeat_jax.data.sources`) with the baseline's labels for this task; empty for
        your own tasks.
      about_colour: whether a change of colour could change the label. Augmentation then keeps the colours of pictures
        with such a label.
      frame: the part of a person that the training pictures show: `face`, `head` or `upper_body`
        (`facefeat_jax.prediction.crops.FRAMES`), or `whole` for the whole picture.
    """

    name: str
    classes: tuple[str, ...]
    source: str = ""
    about_colour: bool = False
    frame: FrameName = "whole"

    def __post_init__(self) -> None:
        kinds.names(self.classes, f"task {self.name!r}")
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise UserError(f"the name of a task must be letters, digits and _, got {self.name!r:.60}")
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise UserError(f"task {self.name!r}: needs two or more different class names, got {self.classes}")
        for name in (self.name, *self.classes):
            if not (isinstance(name, str) and name.strip() and name.isprintable()):
                raise UserError(f"task {self.name!r}: a name is text that a terminal can show, got {name!r:.60}")
        if self.frame not in get_args(FrameName):
            raise unknown("frame", str(self.frame), get_args(FrameName))

    @property
    def is_binary(self) -> bool:
        """Whether the head has one logit, trained with binary cross-entropy."""
        return len(self.classes) == 2

    @property
    def num_outputs(self) -> int:
        """Width of the head's last layer: 1 for a binary task, else the number of classes."""
        return 1 if self.is_binary else len(self.classes)


# Colours in the order in which our data sets number them (sorted names). The notebook numbered them in the order that
# its folders happened to be listed; a run converted from its file carries NOTEBOOK_SHIRT_CLASSES instead, which is why
# class names travel with the weights and are never looked up here after training.
SHIRT_CLASSES = ("black", "blue", "brown", "green", "pink", "red", "white", "yellow")
NOTEBOOK_SHIRT_CLASSES = ("white", "pink", "blue", "black", "red", "yellow", "green", "brown")

# In the order in which the baseline trains them.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("gender", ("female", "male"), source="fairface", frame="face"),
        Task("glasses", ("no_glasses", "glasses"), source="glasses", frame="head"),
        Task("shirt", SHIRT_CLASSES, source="apparel", about_colour=True, frame="upper_body"),
    )
}

# The default tasks of models and recipes. Adding a task to the table does not change them.
BASELINE_TASKS = ("gender", "glasses", "shirt")


def add_task(task: Task) -> Task:
    """Adds your own task to the table, for this process.

    Raises:
      UserError: another task has this name.
    """
    known = TASKS.setdefault(task.name, task)
    if known.classes != task.classes:
        of = ", ".join(known.classes)
        raise UserError(f"task {task.name!r} already exists, with other classes: {of}; choose another name, or these")
    if known != task:
        raise UserError(f"task {task.name!r} already exists, with another frame or data set; choose another name")
    return task


def frames_of(tasks: Iterable[str]) -> dict[str, FrameName]:
    """Returns the frame of each head. A head that is not in the table uses the whole picture."""
    return {task: TASKS[task].frame if task in TASKS else "whole" for task in tasks}


def get_task(task: str | Task) -> Task:
    """Returns the task with this name from `TASKS`; returns a `Task` as it is.

    Raises:
      UserError: the name is not in the table.
    """
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise unknown("task", str(task), TASKS)
    return TASKS[task]
