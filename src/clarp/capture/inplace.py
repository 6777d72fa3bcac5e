"""In-place operations become functional ones.

``x.relu_()`` writes into x, and whoever reads x later sees the result. Where x shares its memory with no
other value that is read later, it is enough to let those later readers read the result. Otherwise the memory
matters, and ``run_decompositions`` works the aliases out; that is right in general, and costs another 0.4 s
(VGG16) to 2.3 s (EfficientNet-Lite0).
"""

import operator

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

aten = torch.ops.aten

NAMES = """
relu.default relu6.default hardtanh.default clamp.default clip.default clamp_min.default
clamp_max.default silu.default gelu.default mish.default hardswish.default sigmoid.default
hardsigmoid.default tanh.default leaky_relu.default elu.default selu.default celu.default add.Tensor
add.Scalar sub.Tensor subtract.Tensor mul.Tensor mul.Scalar multiply.Tensor div.Tensor divide.Tensor
neg.default copy.default abs.default exp.default log.default sqrt.default threshold.default
masked_fill.Scalar masked_fill.Tensor dropout.default feature_dropout.default alpha_dropout.default
feature_alpha_dropout.default atan.default arctan.default
""".split()  # noqa: SIM905  one line each would be forty
"""ATen's functional operations that have a twin of the same name with an underscore, which writes into its
argument."""


def _named(name: str, suffix: str = "") -> OpOverload:
    packet, overload = name.split(".")
    found: OpOverload = getattr(getattr(aten, packet + suffix), overload)
    return found


FUNCTIONAL = {_named(name, "_"): _named(name) for name in NAMES} | {aten.pow_.Scalar: aten.pow.Tensor_Scalar}

BLANK = {
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
}
"""These read the shape and type of their argument, and not its values."""


def functional(program: ExportedProgram, *, own: bool) -> ExportedProgram:
    """The same program without in-place operations.

    Args:
        program: any program.
        own: whether its graph is ours to change.
    """
    dependent = _dependent(program)
    writers = [node for node in program.graph.nodes if writes(node) and node in dependent]
    known = [node for node in writers if node.target in FUNCTIONAL and _sole_owner(node)]
    unknown = any(node.target not in FUNCTIONAL for node in writers)
    if unknown and not own:
        return program
    if own and (unknown or len(known) == len(writers)):
        for node in known:  # what is unknown will be refused by name, together with whatever else has no rule
            _rename(node)
        program.graph.lint()
        return program
    if not writers:
        return program
    decomposed: ExportedProgram = program.run_decompositions({})
    return decomposed


def writes(node: fx.Node) -> bool:
    """Whether this call changes one of its arguments."""
    target = node.target
    return isinstance(target, OpOverload) and target._schema.is_mutable  # noqa: SLF001  no public name


def _dependent(program: ExportedProgram) -> set[fx.Node]:
    """The tensors that depend on the images; the others are computed while capturing, writes included."""
    images = program.graph_signature.user_inputs
    found: set[fx.Node] = set()
    for node in program.graph.nodes:
        valued = isinstance(node.meta.get("val"), Tensor | tuple | list) and node.target not in BLANK
        if node.name in images or (valued and any(source in found for source in node.all_input_nodes)):
            found.add(node)
    return found


def _views(node: fx.Node) -> bool:
    """Whether the result may share memory with an argument."""
    if not isinstance(node.target, OpOverload):
        return node.target is operator.getitem
    return (
        any(result.alias_info is not None for result in node.target._schema.returns)  # noqa: SLF001
        # These return their argument itself whenever they have nothing to do, and their schema does not say
        # so.
        or node.target is aten.type_as.default
        or "dropout" in str(node.target)
    )


def _root(node: fx.Node) -> fx.Node:
    """The value that a chain of in-place operations has been writing into."""
    while writes(node):
        target = node.args[0]
        assert isinstance(target, fx.Node)
        node = target
    return node


def _sole_owner(writer: fx.Node) -> bool:
    """Whether nobody but the later readers of the same value can notice that it was overwritten."""
    root = _root(writer)
    if root.op == "placeholder" or _views(root):
        return False
    names = [root]
    for name in names:
        names += [user for user in name.users if writes(user) and user.args[0] is name]
    return not any(
        _views(user) and not writes(user) and user < writer for name in names for user in name.users
    )


def _rename(writer: fx.Node) -> None:
    target = writer.args[0]
    assert isinstance(target, fx.Node)
    assert isinstance(writer.target, OpOverload)
    target.replace_all_uses_with(writer, delete_user_cb=lambda user: user > writer)
    writer.target = FUNCTIONAL[writer.target]
