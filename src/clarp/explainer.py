"""The explainer: from a model and images to an explanation."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from threading import RLock
from weakref import WeakKeyDictionary

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
)
from clarp.batching import BatchSize, check_batch_size
from clarp.bounds import Bounds, checked_bounds
from clarp.capture import Graph
from clarp.capture.further import NOTHING, Further
from clarp.channels import Channels, channels_of, check_channels
from clarp.classes import ClassNames, checked_labels, numbered
from clarp.errors import RelevanceLost
from clarp.explaining import Explaining, forward_pass
from clarp.explanation import Explanation
from clarp.layers import layer_names, resolve_layers
from clarp.method import Method
from clarp.network import Model, Network
from clarp.output import Output
from clarp.parts import ExplainerParts
from clarp.passes import warn_if_empty
from clarp.programs import Programs, program_of
from clarp.propagation import Plan, Program, make_plan
from clarp.query import Query
from clarp.rules.composites import Composite
from clarp.runner import runner_of
from clarp.targets import Against, Target
from clarp.task import Task, TaskName, checked_task, task_of
from clarp.watching import LossWatch


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
        self._programs = Programs()
        self._further = NOTHING
        self._watch = LossWatch()
        self._channels_read: WeakKeyDictionary[Program, Channels] = WeakKeyDictionary()
        self._lock = RLock()

    def __getstate__(self) -> dict[str, object]:
        """Without what was made for this model in this process: a copy makes its own."""
        own = {
            "_programs": Programs(),
            "_watch": LossWatch(*self.lost),
            "_channels_read": None,
            "_lock": None,
        }
        return {**vars(self), **own}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _channels_read=WeakKeyDictionary(), _lock=RLock())

    def __repr__(self) -> str:
        name, method = self.network.name, self.method
        return f"Explainer({name}, method={method.name!r}, composite={method.rules.name!r})"

    @property
    def lost(self) -> tuple[RelevanceLost, ...]:
        """Its warnings of lost relevance so far."""
        return tuple(self._watch.lost)

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
            parts = self._parts(program)
            names = self._names(parts.task)
            query = self._query(parts, names, images, further, target=target, against=against, layers=layers)
            explaining = Explaining(parts, self.network.name, names, self._runner, self._watch)
            if batch_size is None and self.engine == "torch":
                found = explaining.at_once(query)
            else:
                found = explaining.in_parts(query, batch_size, one_by_one=self.engine != "torch")
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
            return self._parts(program)

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
            computation = forward_pass(program, self.method, images, further)
            # PyTorch takes any number of images.
            cached = self._runner.run(computation) if self.engine == "torch" else computation()
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

    def _parts(self, program: Program) -> ExplainerParts:
        task = self._task(program)
        if program not in self._channels_read:
            self._channels_read[program] = channels_of(program.plan.graph, self.channels)
        return ExplainerParts(program, self.method, task, self.bounds, self._channels_read[program])

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

    def _query(
        self,
        parts: ExplainerParts,
        names: ClassNames | None,
        images: Tensor,
        further: Further,
        *,
        target: Target,
        against: Against,
        layers: Sequence[str],
    ) -> Query:
        """What is asked of a program, checked."""
        graph = parts.program.plan.graph
        points = resolve_layers(layers, graph)
        return Query.checked(
            images,
            further,
            numbered("target", target, names),
            numbered("against", against, names),
            layers=points,
            bounds=self.bounds,
            method=self.method,
            task=parts.task,
            channels=parts.channels,
            logits=next(node.shape[0] for node in graph if node.name == graph.output),
        )

    def _program(self, images: Tensor, further: Further = NOTHING) -> tuple[Program, Further]:
        """The program for images of this size and such inputs, made anew after a capture, and its inputs."""
        with self._lock:
            shape = tuple(images.shape[1:])
            graph, self._further = self.network.settled(shape, images.dtype, further)
            key = shape, self._further.signature
            return self._programs.of(key, graph, lambda graph: self._new(images, graph)), self._further

    def _new(self, images: Tensor, graph: Graph) -> Program:
        """The program of a graph."""
        check_engine_computes(self.engine, images.device, images.dtype)
        self.method = self._asked.on(graph)
        back = torch.bfloat16 if self._dtype == torch.bfloat16 else images.dtype
        return program_of(graph, self.method, images.device, images.dtype, back)


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
