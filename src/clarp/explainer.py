"""The explainer: from a model and images to an explanation."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import RLock
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from clarp.arguments import (
    RANKS,
    DType,
    EngineName,
    Inputs,
    check_engine_computes,
    checked_dtype,
    checked_engine,
    checked_images,
    checked_inputs,
    runner_of,
)
from clarp.batching import BatchSize, Need, Parts, check_batch_size
from clarp.bounds import Bounds, checked_bounds, source
from clarp.capture import Graph
from clarp.capture.further import NOTHING, Further
from clarp.channels import Channels, channels_of, check_channels
from clarp.classes import ClassNames, checked_labels, numbered
from clarp.errors import RelevanceLost, level_of_the_user
from clarp.explanation import Explanation
from clarp.layers import layer_names, resolve_layers
from clarp.method import Method, check_dual_rule
from clarp.network import KEPT, Model, Network
from clarp.output import Output
from clarp.parts import ExplainerParts
from clarp.passes import Maps, Passes, is_empty, lost_of, warn_if_empty
from clarp.propagation import Plan, Program, make_plan
from clarp.query import Query
from clarp.remedy import better
from clarp.rules.composites import Composite
from clarp.seeds import Vector
from clarp.targets import Against, Target, integers
from clarp.task import Task, TaskName, checked_task, task_of

Result = TypeVar("Result")


class Explainer:
    """Explains the decisions of one model with one method.

    The model is captured at the first call, once for each size of image, and never touched: no hooks, no
    changed parameters, no changed mode. When it changes (its weights, modules, attributes or hooks), it is
    captured anew.

    Args:
        model: a module in eval mode that returns logits (B, N), an exported program, the path of a .pt2 file,
            or another explainer's ``network``, to explain one model by several methods and capture it once.
            Loading a .pt2 file can execute code that is in it: take none from somebody whom you would not let
            run a program.
        method: a name from :func:`clarp.methods`, or a :class:`clarp.Method`. The attribute ``method`` has
            the composite that it has in this network (:meth:`clarp.Method.on`) as soon as the model is
            captured.
        composite: a name or a composite in place of the method's own.
        bounds: the lowest and the highest value of a pixel after preprocessing, a number or one per channel;
            for the z^B rule. None: each image's own minima and maxima per channel.
        device: where to compute; None: where the model is.
        dtype: in which floating type to compute: torch.float32, torch.float64 or torch.bfloat16, or one of
            these as a word. With bfloat16 the forward pass is in float32 and everything behind it in
            bfloat16: faster where the hardware has it, half the memory for what is kept, and heatmaps that
                look the same (docs/performance.md). None: the model's own, or float32 for
            a model in half precision.
        compile: True for explanations that are compiled by ``torch.compile``, once for each size of batch, or
            the name of one of its backends. The first explanation takes minutes for a large network; results
            differ by rounding.
        engine: what computes: "torch", or "onnxruntime" on a CPU and in float32. That takes less time for one
            target of one image, not for batches, and up to a minute for the first explanation
            (docs/performance.md#a-faster-engine). Results differ by rounding.
        output: which of several results of the model are the logits: a key, an attribute or a place in a
            tuple, for example "logits" or 0; of nested results a path, for example (0, 1) or "head.logits".
            None: the only tensor, or the one called "logits".
        task: what the last layer means: "multiclass", one of N classes (softmax); "binary", it is so or not
            (one logit, sigmoid); "multilabel", any of N findings (N sigmoids). None: as the model ends; else
            as its configuration says; else one logit is binary and several are multiclass, which the
            explanation notes (docs/methods.md#the-task).
        labels: the names of the classes, for ``target``, ``against`` and pictures; of a binary task those of
            class 0 and class 1, or one: "NAME" stands for "not NAME" and "NAME".
        differentiable: whether relevance is a function of the model's parameters and of the images that
            autograd can differentiate, to train on it (docs/differentiable.md). Each call then takes the
            weights as they are, without capturing the model anew.
        channels: which axis of the images holds the channels, which a heatmap is summed over; None: the one
            that the model's first layer reads as channels, where that can be followed, else 1
            (docs/volumes.md#which-axis-holds-the-channels).

    Raises:
        TypeError: an argument is not of its kind.
        ValueError: an unknown name, bounds that are no bounds, channels that are no axis, or an engine that
            can't do what else was asked.
        ModuleNotFoundError: the engine is not installed; the message says how to install it.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
        >>> explainer = Explainer(model, method="sglrp", bounds=(0.0, 1.0))
        >>> explanation = explainer(torch.rand(2, 3, 8, 8), target=[1, 4])
        >>> explanation.heatmap.shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        model: Model | Network,
        method: str | Method = "ssglrp",
        *,
        composite: str | Composite | None = None,
        bounds: Bounds | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | DType | None = None,
        compile: bool | str = False,  # noqa: A002  PyTorch's word for it
        engine: EngineName = "torch",
        output: Output = None,
        task: TaskName | None = None,
        labels: Sequence[str] | None = None,
        channels: int | None = None,
        differentiable: bool = False,
    ) -> None:
        self._asked = Method.named(method).with_composite(composite)
        self.method = self._asked
        if isinstance(model, Network) and output is not None:
            raise ValueError(
                f"output is {output!r}, and the network has its own: make it Network(model, output)."
            )
        if not isinstance(model, Network):
            model = Network(model, output, differentiable=differentiable)
        if model.differentiable is not bool(differentiable):
            raise ValueError(
                f"differentiable is {differentiable!r}, and the network has its own: make it Network(model, "
                f"differentiable={bool(differentiable)})."
            )
        if differentiable and (compile is not False or engine != "torch"):
            raise ValueError(
                f"differentiable=True was given with compile={compile!r} and engine={engine!r}, expected "
                "neither: autograd goes through PyTorch's own operations."
            )
        self.network = model
        self.bounds = checked_bounds(bounds)
        self.task = checked_task(task)
        self.labels = checked_labels(labels)
        self.channels = check_channels(channels)
        self._device = None if device is None else torch.device(device)
        self._dtype = checked_dtype(dtype)
        self.engine = checked_engine(engine)
        check_engine_computes(self.engine, self._device, self._dtype)
        self._runner = runner_of(compile, self.engine, self.network)
        self._programs: dict[object, Program] = {}
        self._further = NOTHING
        self._watched: WeakSet[object] = WeakSet()
        self._lost: list[RelevanceLost] = []
        self._channels_read: WeakKeyDictionary[Program, Channels] = WeakKeyDictionary()
        self._lock = RLock()

    def __getstate__(self) -> dict[str, object]:
        """Without what was made for this model in this process: a copy makes its own."""
        return {**vars(self), "_programs": {}, "_watched": None, "_channels_read": None, "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _watched=WeakSet(), _channels_read=WeakKeyDictionary(), _lock=RLock())

    def __repr__(self) -> str:
        name, method = self.network.name, self.method
        return f"Explainer({name}, method={method.name!r}, composite={method.rules.name!r})"

    @property
    def lost(self) -> tuple[RelevanceLost, ...]:
        """Its warnings of lost relevance so far."""
        return tuple(self._lost)

    def __call__(
        self,
        images: Tensor,
        target: Target = None,
        against: Against = None,
        *,
        layers: Sequence[str] = (),
        batch_size: BatchSize = None,
        inputs: Inputs = (),
    ) -> Explanation:
        """Explain the model's decisions on images.

        Args:
            images: (B, C, H, W), floating, preprocessed as the model expects; or volumes and clips (B, C, D,
                H, W), several views (B, V, C, H, W), signals (B, C, L).
            target: the class to explain: None for the most probable, an int or a name, or a list or tensor of
                shape (B,); shape (B, K) explains K classes of each image with one forward pass and one
                batched backward.
            against: the classes that the target is contrasted with: None for all others (for none where
                several may be there), an int or a name, one list for all images, or a tensor (B, M). A target
                is never its own rival.
            layers: modules whose outputs' relevance to keep, by their paths in the model (:meth:`layers`
                lists them); a module that is called several times gives ``path#1``, ``path#2``, ..., and each
                can be named alone.
            batch_size: how many images are explained at once: None for all; a number; or "auto" for as many,
                and as many targets of each, as fit into half of the free memory. With a number or "auto", a
                part that runs out of memory is explained in halves.
            inputs: what the model takes beside the images, as captum's ``additional_forward_args``: in the
                order of its forward, ``(table,)``, or by name, ``{"table": table}``. A tensor (B, ...) has a
                row for each image, one of batch 1 is repeated, and any other, or a number, is one for all
                images. They are held constant: no relevance goes to them, and what stays with them is in the
                ledger as what stays with constants of the model is, as bias.

        Returns:
            The explanation; its relevance has the shape of the images, (B, C, H, W), or (B, K, C, H, W) for a
            target of shape (B, K).

        Raises:
            TypeError: images, target, against, layers, batch_size or inputs are not of their kind.
            ValueError: inputs that the model doesn't take, a batch_size below one, a wrong shape, a value
                that is not finite or far outside bounds, a class out of range or of an unknown name, a model
                in train mode, rivals for a method that has none, an unknown layer, a task or labels that the
                model can't have.
            CaptureError: the model can't be captured.
            UnsupportedOperation: it has operations that no rule covers; the message lists them all.
            torch.OutOfMemoryError: memory runs out; with a batch_size only where not even one target of one
                image fits.

        Warns:
            RelevanceLost: more than half of the relevance never reached the pixels; once for each size of
                image.
            EmptyMap: a map has no relevance at all; every time.
        """
        check_batch_size(batch_size)
        images, further = self._checked(images, inputs)
        with self._recording(), torch.autocast(images.device.type, enabled=False):
            program, further = self._program(images, further)
            query = self._query(program, images, further, target=target, against=against, layers=layers)
            if batch_size is None and self.engine == "torch":
                found = self._explain(query, program)
            else:
                found = self._in_parts(query, program, batch_size)
        warn_if_empty(found.empty, found.target, found.ledger.size)
        return found

    def plan(self, input_shape: Sequence[int] | None = None) -> Plan:
        """Which rule every operation gets; ``str(plan)`` is a table.

        Args:
            input_shape: (C, H, W) of an image, or the shape of a volume, of views or of a signal; None: that
                of the last images explained, or that of an exported program.

        Raises:
            ValueError: no shape is known yet.
        """
        graph = self._graph(input_shape)
        self.method = self._asked.on(graph)
        return make_plan(graph, self.method.rules)

    def layers(self, input_shape: Sequence[int] | None = None) -> tuple[str, ...]:
        """The names that ``explainer(images, layers=...)`` knows, in the order of computation.

        Args:
            input_shape: as in :meth:`plan`.

        Raises:
            ValueError: no shape is known yet.
        """
        return layer_names(self._graph(input_shape))

    def parts(self, input_shape: Sequence[int]) -> ExplainerParts:
        """What images of this size are explained with; :func:`clarp.export` writes it as one program.

        Args:
            input_shape: (C, H, W) of an image, or the shape of a volume, of views or of a signal.

        Raises:
            ValueError: the model has further inputs, or is in train mode.
            CaptureError: the model can't be captured.
            UnsupportedOperation: it has operations that no rule covers; the message lists them all.
        """
        images, further = self._checked(torch.zeros(1, *input_shape, device=self.network.device), ())
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            program, _ = self._program(images, further)
        return ExplainerParts(program, self.method, self._task(program), self.bounds, self._channels(program))

    def probabilities(self, images: Tensor, *, inputs: Inputs = ()) -> Tensor:
        """What the model says, as its task has it: (B, classes); a binary task has two classes.

        Args:
            images: as in :meth:`__call__`, and the same errors.
            inputs: likewise.
        """
        task, logits = self.task_and_logits(images, inputs=inputs)
        return task.probabilities(logits)

    def task_and_logits(self, images: Tensor, *, inputs: Inputs = ()) -> tuple[Task, Tensor]:
        """What the model says: its logits (B, N), and the task, which knows what they mean.

        Args:
            images: as in :meth:`__call__`, and the same errors.
            inputs: likewise.
        """
        images, further = self._checked(images, inputs)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            program, further = self._program(images, further)
            if self.engine == "torch":
                cached = self._run(program, "forward", Program.forward, (images, further.tensors))
            else:  # for any number of images
                cached = program.forward(images, further.tensors)
            return self._task(program), cached.logits

    def _checked(self, images: Tensor, inputs: Inputs) -> tuple[Tensor, Further]:
        live = self.network.differentiable
        images = checked_images(images, self.network, self._device, self._computing, live=live)
        return images, checked_inputs(inputs, images, self.network, self._device, self._computing)

    def _recording(self) -> AbstractContextManager[None]:
        """Autograd records a differentiable explanation, where the caller lets it, and no other."""
        return torch.set_grad_enabled(self.network.differentiable and torch.is_grad_enabled())

    def _task(self, program: Program) -> Task:
        return task_of(program.plan.graph, self.task, self.network.task)

    def _channels(self, program: Program) -> Channels:
        """Which axis of the images holds the channels."""
        if program not in self._channels_read:
            self._channels_read[program] = channels_of(program.plan.graph, self.channels)
        return self._channels_read[program]

    def _names(self, task: Task) -> ClassNames | None:
        return None if self.labels is None else ClassNames(task.labels(self.labels), self.network.name)

    def _graph(self, input_shape: Sequence[int] | None) -> Graph:
        shape = self.network.input_shape() if input_shape is None else tuple(input_shape)
        if shape is None:
            raise ValueError(
                "the size of the images is not known before the first explanation: pass "
                "input_shape=(channels, height, width), for example plan(input_shape=(3, 224, 224))."
            )
        if len(shape) + 1 not in RANKS:
            raise ValueError(
                f"input_shape is {input_shape!r}, expected (channels, height, width), for example (3, 224, "
                "224), or that of a volume, of views or of a signal, without the batch."
            )
        self.network.check_mode()
        return self.network.graph(shape, self._computing(torch.get_default_dtype()), self._further)

    def _computing(self, given: torch.dtype) -> torch.dtype:
        """The type to compute in, for images of this type."""
        own = (self.network.dtype or given) if self._dtype is None else self._dtype
        return torch.float32 if own in (torch.float16, torch.bfloat16) else own

    def _back(self, images: Tensor) -> torch.dtype:
        """The type to go back in."""
        return torch.bfloat16 if self._dtype == torch.bfloat16 else images.dtype

    def _query(
        self,
        program: Program,
        images: Tensor,
        further: Further,
        *,
        target: Target,
        against: Against,
        layers: Sequence[str],
    ) -> Query:
        """What is asked of a program, checked."""
        graph, task = program.plan.graph, self._task(program)
        points, names = resolve_layers(layers, graph), self._names(task)
        return Query.checked(
            images,
            further,
            numbered("target", target, names),
            numbered("against", against, names),
            layers=points,
            bounds=self.bounds,
            method=self.method,
            task=task,
            channels=self._channels(program),
            logits=next(node.shape[0] for node in graph if node.name == graph.output),
        )

    def _in_parts(self, query: Query, program: Program, size: BatchSize) -> Explanation:
        """What :meth:`_explain` gives, part after part; rivals that can't be are found before the first."""
        against, batch = query.against, len(query.images)
        rivals = None if against is None else integers("against", against)
        if rivals is not None and (query.target is not None or (rivals.ndim == 2 and len(rivals) != batch)):
            known = torch.zeros(batch, dtype=torch.long) if query.target is None else query.target.cpu()
            self._task(program).rivals(against, known.view(batch, -1).t(), query.logits)
        need = Need.of(program.plan, self.method, self._back(query.images))
        parts = Parts.fitting(
            lambda rows, columns: self._explain(query.part(rows, columns), program),
            size,
            query.targets,
            need,
            query.images.device,
        )
        if self.engine != "torch":
            parts.images = 1
        found = parts.of(range(batch), range(query.targets))
        return replace(found, images=query.images, against=rivals)

    def _explain(self, query: Query, program: Program) -> Explanation:
        """The explanation of all at once."""
        task, images = self._task(program), query.images
        cached = self._run(program, "forward", Program.forward, (images, query.further.tensors))
        classes = task.scores(cached.logits).argmax(1) if query.target is None else query.target
        chosen = (classes.unsqueeze(1) if classes.ndim == 1 else classes).t().contiguous()
        rivals, targets = self._rivals(task, query.against, chosen, cached.logits), task.columns(chosen)
        initial = query.seed.relevance(cached.logits, targets, rivals)
        axis = self._channels(program).axis
        passes = Passes(self.method, program, cached, targets, rivals, initial, query.bounds, axis)
        points = frozenset(query.layers.values())
        maps = self._run(
            program,
            f"back {sorted(map(repr, points))}",
            lambda program, cached, bounds, targets, rivals, seed: Passes(
                self.method, program, cached, targets, rivals, seed, bounds, axis
            ).maps(points),
            (cached, query.bounds),
            (targets, rivals, initial),
        )
        with torch.no_grad():
            self._watch(passes, maps, images, chosen, query.first)
        maps = maps.signed(None if isinstance(self.method.seed, Vector) else task.signs(chosen))
        relevance = maps.relevance.clamp(min=0) if self.method.rectify else maps.relevance
        single, names, channels = classes.ndim == 1, self._names(task), self._channels(program)

        def sample_first(value: Tensor) -> Tensor:
            return value[0] if single else value.transpose(0, 1)

        return Explanation(
            relevance=sample_first(relevance),
            logits=cached.logits,
            target=classes,
            against=None if query.against is None else torch.as_tensor(query.against),
            method=self.method,
            ledger=maps.ledger.map(lambda value: sample_first(value.detach())),
            selection_skipped=sample_first(maps.skipped),
            layers={name: sample_first(maps.layers[point]) for name, point in query.layers.items()},
            images=images,
            bounds_source=source(self.bounds, program.plan),
            model=self.network.name,
            empty=sample_first(is_empty(relevance, maps.ledger.size)),
            question=task,
            labels=None if names is None else names.labels,
            channels=channels.axis,
            assumed=tuple(filter(None, (program.plan.graph.assumed, channels.note))),
        )

    def _run(
        self,
        program: Program,
        what: str,
        function: Callable[..., Result],
        arguments: Sequence[object],
        per_target: Sequence[Tensor] = (),
    ) -> Result:
        """``function(program, *arguments, *per_target)``, compiled or by an engine if that was asked for."""
        if self._runner is None:
            return function(program, *arguments, *per_target)
        method = self.method
        # What the passes read of it beside the rules, which are the program's.
        circumstances = (
            f"{what} {method.passes} {method.normalisation} {method.selections!r} {method.covering!r}"
        )
        return self._runner.run(program, circumstances, function, arguments, per_target)

    def _watch(self, passes: Passes, maps: Maps, images: Tensor, classes: Tensor, first: int) -> None:
        """Warn of lost relevance, once for each program, and say what loses less; the classes are (K, B)."""
        graph = passes.program.plan.graph
        watched = passes.program if graph.again is None else graph.again
        if watched in self._watched or self.method.covering is not None:
            return  # what differences add up to may be anything, also nothing
        found = lost_of(passes.amounts(maps), classes, first)
        if found is not None:
            warning, row, column = found
            warning.better = better(passes, images[column], row, column, self._back(images))
            self._lost.append(warning)
            warnings.warn(warning, stacklevel=level_of_the_user())
        if found is not None or not maps.one_sign:  # to look at a contrast costs more passes
            self._watched.add(watched)

    def _rivals(self, task: Task, against: Against, targets: Tensor, logits: Tensor) -> Tensor:
        """Which logits each of the classes (K, B) is contrasted with, bool (K, B, N)."""
        if not self.method.has_rivals:
            return torch.zeros(*targets.shape, logits.shape[1], dtype=torch.bool, device=logits.device)
        return task.rivals(against, targets, logits.shape[1])

    def _program(self, images: Tensor, further: Further = NOTHING) -> tuple[Program, Further]:
        """The program for images of this size and such inputs, made anew after a capture, and its inputs."""
        with self._lock:
            graph, self._further = self.network.settled(tuple(images.shape[1:]), images.dtype, further)
            return self._made(images, self._further, graph), self._further

    def _made(self, images: Tensor, further: Further, graph: Graph) -> Program:
        if graph.again is not None:  # of the weights as they are now
            return self._new(images, replace(graph.again(), again=graph.again))
        key = tuple(images.shape[1:]), further.signature
        program = self._programs.pop(key, None)
        if program is None or program.plan.graph is not graph:
            program = self._new(images, graph)
        self._programs[key] = program  # now the last used
        while len(self._programs) > KEPT:
            del self._programs[next(iter(self._programs))]
        return program

    def _new(self, images: Tensor, graph: Graph) -> Program:
        """The program of a graph."""
        check_engine_computes(self.engine, images.device, images.dtype)
        self.method = self._asked.on(graph)
        plan = make_plan(graph, self.method.rules)
        if self.method.passes == "dual":
            check_dual_rule(next(step.rule for step in plan if step.node is plan.head()))
        return Program(
            plan,
            images.device,
            images.dtype,
            self._back(images),
            gradients=bool(self.method.selections),
            secants=self.method.covering is not None,
        )


def attribute(
    model: Model | Network,
    images: Tensor,
    target: Target = None,
    method: str | Method = "ssglrp",
    *,
    against: Against = None,
    composite: str | Composite | None = None,
    bounds: Bounds | None = None,
    task: TaskName | None = None,
    labels: Sequence[str] | None = None,
    inputs: Inputs = (),
) -> Tensor:
    """The relevance of images in one call; arguments, shapes and errors as in :class:`Explainer`.

    Returns:
        Relevance of the shape of the images, (B, C, H, W), or (B, K, C, H, W) for a target of shape (B, K).
    """
    explainer = Explainer(model, method, composite=composite, bounds=bounds, task=task, labels=labels)
    return explainer(images, target, against, inputs=inputs).relevance
