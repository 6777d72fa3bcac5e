"""In-place operations become functional ones.

``x.relu_()`` writes into x, and whoever reads x later sees the result. Where x shares its memory with no other value
that is read later, it is enough to let those later readers read the result. Otherwise the memory matters, and
``run_decompositions`` works the aliases out; that is right in general, and costs another 0.4 s (VGG16) to 2.3 s (EfficientNet-Lite0).
"""

import operator

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

aten = torch.ops.aten

FUNCTIONAL = {
    aten.relu_.default: aten.relu.default,
    aten.relu6_.default: aten.relu6.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.clamp_.default: aten.clamp.default,
    aten.add_.Tensor: aten.add.Tensor,
    aten.dropout_.default: aten.dropout.default,
    aten.feature_dropout_.default: aten.feature_dropout.default,
}


def functional(program: ExportedProgram, *, own: bool) -> ExportedProgram:
    """The same program without in-place operations.

    Args:
        program: any program.
        own: whether its graph is ours to change.
    """
    writers = [node for node in program.graph.nodes if writes(node)]
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
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable  # noqa: SLF001  no public name


def _views(node: fx.Node) -> bool:
    """Whether the result may share memory with an argument."""
    if not isinstance(node.target, OpOverload):
        return node.target is operator.getitem
    return any(result.alias_info is not None for result in node.target._schema.returns) or (  # noqa: SLF001
        # These return their argument itself whenever they have nothing to do, and their schema does not say so.
        node.target
        in {aten.dropout.default, aten.feature_dropout.default, aten.contiguous.default, aten.to.dtype}
        or "reshape" in str(node.target)
        or "flatten" in str(node.target)
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
