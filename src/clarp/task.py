"""The task: which question the model was trained for, and what its logits, classes and rivals are then.

Words as in torchmetrics; z are logits, sigma is the sigmoid.

==========  =================  =====================================  =================  =====================
task        classes            probability                            rivals of a class  lead
==========  =================  =====================================  =================  =====================
multiclass  N, one of them     softmax(z)                             all others         z_k - logsumexp(them)
binary      0 and 1, of one z  sigma(z) for class 1, sigma(-z) for 0  the other class    z, for class 0 -z
multilabel  N, any of them     sigma(z_k)                             none               z_k
==========  =================  =====================================  =================  =====================

The lead is the log-odds of the probability, without its rounding to 1.

With ``against=`` the rivals are the classes named there.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from clarp.capture import Graph
from clarp.targets import Against, all_others, no_others, resolve_rivals

TaskName = Literal["multiclass", "binary", "multilabel"]
ASSUMED = "assumed"


@dataclass(frozen=True)
class Task(ABC):
    """What the last layer means.

    Attributes:
        source: how the task is known, in words; it begins with "assumed" where it was not said.
        classes: how many there are.
    """

    name: ClassVar[TaskName]
    otherwise: ClassVar[str] = ""
    """What follows from an assumption, and what to do where it is wrong."""
    source: str = field(compare=False)
    classes: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, a sentence each."""
        return (
            (f"task: {self.name} ({self.source}){self.otherwise}",) if self.source.startswith(ASSUMED) else ()
        )

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Logits (B, N) as a score for each class, (B, classes); the greatest is the most probable class."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, N) as probabilities (B, classes)."""

    def lead(self, logits: Tensor, target: Tensor) -> Tensor:
        """How far each target (B,) is ahead of everything else, (B,): the log-odds of its probability."""
        return self.scores(logits).gather(1, target[:, None])[:, 0]

    def columns(self, target: Tensor) -> Tensor:
        """Which logit stands for each class, in the shape of ``target``."""
        return target

    def signs(self, target: Tensor) -> Tensor | None:
        """The factor of each class' map, -1 or 1 in the shape of ``target``; None where it is always 1."""
        del target
        return None

    def rivals(self, against: Against, target: Tensor, count: int) -> Tensor:
        """Which logits each target is contrasted with, bool (K, B, N).

        Args:
            against: see :meth:`clarp.Explainer.__call__`.
            target: classes (K, B).
            count: N.

        Raises:
            TypeError: not integers.
            ValueError: a class out of range, or nobody left to be a rival.
        """
        if against is None:
            return self.own_rivals(target, count)
        return resolve_rivals(against, target, count)

    def own_rivals(self, target: Tensor, count: int) -> Tensor:
        """Which logits each target (K, B) is contrasted with where none were named, bool (K, B, N)."""
        return all_others(target, count)

    def unnamed_rivals(self, has_rivals: bool) -> str:
        """What a class is contrasted with where none were named, in words."""
        return "all other classes" if has_rivals else "nothing: the method has no rivals"

    def labels(self, given: Sequence[str]) -> tuple[str, ...]:
        """A name for each class.

        Raises:
            ValueError: there are more or fewer than classes.
        """
        if len(given) != self.classes:
            raise ValueError(
                f"{len(given)} label(s) were given, and the model has {self.classes} classes, expected a "
                "name for each, in the order of the logits."
            )
        return tuple(map(str, given))


@dataclass(frozen=True)
class Multiclass(Task):
    """One of N classes: ``y = softmax(z)``; the rivals of a class are all others."""

    name: ClassVar[TaskName] = "multiclass"
    otherwise: ClassVar[str] = (
        ", so probabilities sum to 1 and rivals are all other classes, which is wrong if several classes may "
        'be there at once: say so by `--task multilabel` or `task="multilabel"`'
    )

    def scores(self, logits: Tensor) -> Tensor:
        """The logits."""
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """``softmax(z)``."""
        return logits.softmax(1)

    def lead(self, logits: Tensor, target: Tensor) -> Tensor:
        """``z_t - log sum_n exp(z_n)`` over all others."""
        others = logits.scatter(1, target[:, None], -torch.inf).logsumexp(1)
        return super().lead(logits, target) - others


@dataclass(frozen=True)
class Binary(Task):
    """It is so or not: class 1 has ``sigma(z)``, class 0 ``sigma(-z)``.

    Every method gives for class 1 what it gives on the logits (0, z), whose first is no rival that relevance
    could go to. Class 0 is the same question with its sign turned: its map is the negative of the other's.
    """

    name: ClassVar[TaskName] = "binary"
    classes: int = 2

    def scores(self, logits: Tensor) -> Tensor:
        """``(-z, z)``."""
        return torch.cat([-logits, logits], 1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """``(sigma(-z), sigma(z))``."""
        return self.scores(logits).sigmoid()

    def columns(self, target: Tensor) -> Tensor:
        """There is one logit."""
        return torch.zeros_like(target)

    def signs(self, target: Tensor) -> Tensor:
        """1 for class 1, -1 for class 0."""
        return 2 * target - 1

    def rivals(self, against: Against, target: Tensor, count: int) -> Tensor:
        """No logit; the other class may be named."""
        if against is not None:
            resolve_rivals(against, target, self.classes)
        return self.own_rivals(target, count)

    def own_rivals(self, target: Tensor, count: int) -> Tensor:
        """None."""
        return no_others(target, count)

    def unnamed_rivals(self, has_rivals: bool) -> str:
        """That there are only two."""
        return "the other class: it is so, or not" if has_rivals else super().unnamed_rivals(has_rivals)

    def labels(self, given: Sequence[str]) -> tuple[str, ...]:
        """Those of class 0 and class 1; of one name the classes are "not NAME" and "NAME".

        Raises:
            ValueError: there are more than two, or none.
        """
        if len(given) == 1:
            return (f"not {given[0]}", str(given[0]))
        return super().labels(given)


@dataclass(frozen=True)
class Multilabel(Task):
    """Any of N classes, each by itself: ``sigma(z_k)``. A class has only the rivals that are named."""

    name: ClassVar[TaskName] = "multilabel"

    def scores(self, logits: Tensor) -> Tensor:
        """The logits."""
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """``sigma(z_k)``, each by itself."""
        return logits.sigmoid()

    def unnamed_rivals(self, has_rivals: bool) -> str:
        """None."""
        return (
            "nothing: each class is a question of its own"
            if has_rivals
            else super().unnamed_rivals(has_rivals)
        )

    def rivals(self, against: Against, target: Tensor, count: int) -> Tensor:
        """Those that were named."""
        return self.own_rivals(target, count) if against is None else super().rivals(against, target, count)

    def own_rivals(self, target: Tensor, count: int) -> Tensor:
        """None."""
        return no_others(target, count)


def task_named(name: TaskName, source: str, classes: int) -> Task:
    """A task of so many classes; ``source``: how it is known."""
    return _KINDS[name](source, classes)


def checked_task(task: object) -> TaskName | None:
    """What was given as ``task``.

    Raises:
        ValueError: something else than a name of a task, or None.
    """
    found = next((name for name in get_args(TaskName) if name == task), None)
    if found is None and task is not None:
        raise ValueError(
            f"task is {task!r}, expected 'multiclass' (one of the classes), 'binary' (it is so or not), "
            "'multilabel' (any of them), or nothing, to see by how the model ends."
        )
    return found


def task_of(graph: Graph, given: TaskName | None, said: TaskName | None = None) -> Task:
    """The task of a captured model.

    Args:
        graph: how it ends: in a sigmoid, in a softmax, or in logits.
        given: by the user; it counts first.
        said: by the model itself, its configuration; it counts where the graph doesn't tell.

    Raises:
        ValueError: what was given can't be the task of so many logits.
    """
    (count,) = next(node.shape for node in graph if node.name == graph.output)
    squash = None if graph.link is None else graph.link.squash
    if graph.pair is not None:
        return Binary("its two columns are made of one value")
    if given is not None:
        _check_count(given, count)
        return _KINDS[given]("given", 2 if given == "binary" else count)
    if count == 1:
        return _of_one_logit(graph, said)
    if squash is not None:
        kind = Multilabel if squash == "sigmoid" else Multiclass
        return kind(_end_of(graph), count)
    if said in ("multiclass", "multilabel"):
        return _KINDS[said]("its configuration says so", count)
    return Multiclass(f"{ASSUMED}: it ends in {count} logits", count)


def _end_of(graph: Graph) -> str:
    """How the task is known by the model's end."""
    assert graph.link is not None
    if graph.link.seen:
        return f"it ends in a {graph.link.squash}"
    each = "each by itself" if graph.link.squash == "sigmoid" else "which sum to 1"
    return f"{ASSUMED}: its results are probabilities, {each}"


def _of_one_logit(graph: Graph, said: TaskName | None) -> Task:
    squash = None if graph.link is None else graph.link.squash
    if squash == "softmax":
        raise ValueError(
            "the model ends in a softmax over one class, which is always 1, expected a sigmoid. Say what "
            "its logit means, for example task='binary'."
        )
    if squash is None and said == "multilabel":
        return Multilabel("its configuration says so", 1)
    return Binary(f"{ASSUMED}: it has one logit" if squash is None else _end_of(graph))


_KINDS: dict[str, type[Task]] = {kind.name: kind for kind in (Multiclass, Binary, Multilabel)}


def _check_count(given: TaskName | None, count: int) -> None:
    if given == "binary" and count != 1:
        raise ValueError(
            f"task is 'binary', and the model has {count} logits, expected one. "
            + (
                "Two logits that a softmax compares are two classes: task='multiclass'."
                if count == 2
                else "Findings of which several may be there are task='multilabel'; classes of which one is, "
                "task='multiclass'."
            )
        )
    if given == "multiclass" and count == 1:
        raise ValueError(
            "task is 'multiclass', and the model has one logit, expected at least two. One logit is "
            "task='binary': it is so or not."
        )
