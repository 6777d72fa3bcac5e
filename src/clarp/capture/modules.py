"""Where in the graph the output of each module is: by the calls that the export recorded, without a hook."""

from collections.abc import Collection, Iterator, Mapping

from torch import Tensor, fx

from clarp.capture.graph import HookPoint


def module_outputs(
    nodes: Collection[fx.Node], alias: Mapping[str, str]
) -> dict[str, tuple[HookPoint | None, ...]]:
    """For each module that computes something of the logits the place of its output, once per call.

    Args:
        nodes: the exported nodes that depend on the images and that the logits depend on, in their order.
        alias: for each of them the value of the captured graph that it is.

    Returns:
        By the module's path; None for a call that returns several values, or one that is also read around the
        module.
    """
    calls: dict[str, dict[str, list[fx.Node]]] = {}
    for node in nodes:
        for call, path in _stack(node):
            calls.setdefault(path, {}).setdefault(call, []).append(node)
    counted = dict.fromkeys(nodes)
    return {
        path: tuple(_hook_point(call, inside, counted, alias) for call, inside in found.items())
        for path, found in calls.items()
        if path
    }


def _stack(node: fx.Node) -> Iterator[tuple[str, str]]:
    """The calls that a node was made in, outermost first: the call's unique name, and the module's path."""
    for call, (path, *_) in (node.meta.get("nn_module_stack") or {}).items():
        yield call, str(path)


def _hook_point(
    call: str, inside: list[fx.Node], counted: Collection[fx.Node], alias: Mapping[str, str]
) -> HookPoint | None:
    def leaves(node: fx.Node) -> bool:
        readers = [user for user in node.users if user in counted or user.op == "output"]
        # The logits of a model that goes on to a softmax have no reader that counts.
        return not readers or any(user.op == "output" or call not in dict(_stack(user)) for user in readers)

    outputs = [node for node in inside if leaves(node) and isinstance(_value(node), Tensor)]
    if len(outputs) != 1 or _read_around(outputs[0], counted, alias):
        return None
    return HookPoint(alias[outputs[0].name])


def _value(node: fx.Node) -> object:
    value = node.meta.get("val")
    return value[0] if isinstance(value, tuple | list) and len(value) else value


def _read_around(output: fx.Node, counted: Collection[fx.Node], alias: Mapping[str, str]) -> bool:
    """Whether the same value is read from another node: the input of a dropout, say."""
    same = dict.fromkeys(node for node in counted if alias.get(node.name) == alias[output.name])
    behind = {output}
    for node in same:
        if any(source in behind for source in node.all_input_nodes):
            behind.add(node)
    before = [node for node in same if node not in behind]
    return any(user in counted and user not in same for node in before for user in node.users)
