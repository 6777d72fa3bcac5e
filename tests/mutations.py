"""Break each rule and each transpose on purpose, one at a time, and see that the tests notice: `make mutations`.

The working tree is never touched: each mutant is an edit of a copy of the package. A mutant that no test notices is a
failure of the tests; one whose line is no longer in the source is a failure of the table below.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/rules/test_linear_twins.py",
    "tests/rules/test_axes_twins.py",
    "tests/test_axes.py",
    "tests/test_channels.py",
    "tests/rules/test_parts.py",
    "tests/rules/test_zeros.py",
    "tests/rules/test_pooling_twins.py",
    "tests/rules/test_routing_twins.py",
    "tests/rules/test_attention_twins.py",
    "tests/rules/test_merge_twins.py",
    "tests/rules/test_attnlrp.py",
    "tests/rules/test_custom.py",
    "tests/rules/test_choice_twins.py",
    "tests/operations",
    "tests/propagation",
    "tests/rules/test_selection_twins.py",
    "tests/rules/test_network_twins.py",
    "tests/test_explanation.py",
    "tests/test_layers.py",
    "tests/capture",
    "tests/test_identities.py",
    "tests/test_selection.py",
    "tests/test_task.py",
    "tests/test_differentiable.py",
)


@dataclass(frozen=True)
class Mutant:
    """One wrong line.

    Attributes:
        file: below src/clarp.
        right: as it stands there, once.
        wrong: what it becomes.
        first: the tests that should notice, run before the others to save time.
    """

    file: str
    right: str
    wrong: str
    first: str = f"{TESTS[0]}::test_dense"


SCALED = "tests/rules/test_axes_twins.py::test_convolution"
PARTS, LINEAR, BASIC, RULE = "rules/parts.py", "rules/linear.py", "rules/basic.py", "rules/rule.py"
MERGE, ATTENTION, NORM = "rules/merge.py", "rules/attention.py", "rules/normalisation.py"
WEIGHTED, AVERAGE, POOLING = "operations/linear.py", "operations/average.py", "operations/pooling.py"
SHAPE, INDEXING = "operations/shape.py", "operations/indexing.py"
ELEMENTWISE, OPERATIONS = "operations/elementwise.py", "operations/attention.py"
PROGRAM, FOLDS = "propagation/program.py", "capture/folds.py"
HANDING, PLACED = "propagation/handing.py", "propagation/constants.py"
CONDITION, POWER, SAMPLING = "operations/condition.py", "operations/power.py", "operations/sampling.py"
TASK, TASKS = "task.py", "tests/test_task.py"
EXPLAINED, RECORDED = "exporting/explained.py", "tests/exporting/test_recorded.py"
BINARY, FINDINGS = (
    f"{TASKS}::test_one_value_is_the_binary_question_about_it",
    f"{TASKS}::test_each_finding_is_a_question_of_its_own",
)
CHOICES, SPELT = "tests/rules/test_choice_twins.py", "tests/capture/test_choices.py"
LINEAR_TWINS, OF_PARTS, ZEROS, POOLING_TWINS, ROUTING_TWINS, ATTENTION_TWINS = TESTS[:6]
SELECTION_TWINS, NETWORK_TWINS = "tests/rules/test_selection_twins.py", "tests/rules/test_network_twins.py"
FACTORS = "tests/rules/test_merge_twins.py::test_against_loops"
AXES_TWINS, AXES, CHANNELS = "tests/rules/test_axes_twins.py", "tests/test_axes.py", "tests/test_channels.py"
IDENTITIES, SELECTION = "tests/test_identities.py", "tests/test_selection.py"
LIVE = "tests/test_differentiable.py"
DEAD = f"{LINEAR_TWINS}::test_dead_outputs_hand_on_nothing"
BEHIND_RELU = f"{LINEAR_TWINS}::test_non_negative_input"
TRANSPOSED = f"{LINEAR_TWINS}::test_awkward_transposed_convolution"
AWKWARD = f"{LINEAR_TWINS}::test_awkward_convolution"
AT_ZERO = f"{LINEAR_TWINS}::test_epsilon_at_zero_counts_as_positive"
RESIDUALS = f"{POOLING_TWINS}::test_residual_add"
AVERAGES = f"{POOLING_TWINS}::test_average_is_proportional_to_activation"
WINNERS = f"{POOLING_TWINS}::test_max_pool_of_equals_takes_the_first"
RESNETS = f"{NETWORK_TWINS}::test_every_composite_on_a_small_resnet"
SELECTIONS = f"{SELECTION_TWINS}::test_every_convolution"
NEURONS = f"{SELECTION_TWINS}::test_neuron_form"
PRODUCTS = f"{ATTENTION_TWINS}::test_product"
SOFTMAX = f"{ATTENTION_TWINS}::test_softmax"
MASKS = f"{ATTENTION_TWINS}::test_masked_scores"
CONSTANTS = f"{ATTENTION_TWINS}::test_sum_with_a_constant"
LEDGER = f"{IDENTITIES}::test_the_ledger_says_what_absorbed"
DUAL = f"{IDENTITIES}::test_clrp2_by_two_explicit_runs"
BALANCE = "tests/propagation/test_ledger.py"
MOVES, COPIES, SIDES = (
    f"tests/operations/test_shape.py::test_gradient{what}"
    for what in ("", "_of_copies", "_of_several_side_by_side")
)
ATTENTION_GRADIENTS = "tests/operations/test_attention.py::test_gradient"

MUTANTS = (
    # The parts that rules are written in.
    Mutant(PARTS, "part = value.clamp(min=0)", "part = value.clamp(max=0)"),
    Mutant(PARTS, "part = value.clamp(max=0)", "part = value.clamp(min=0)"),
    Mutant(PARTS, "return torch.where(value > 0, value * p, value * n)", "return torch.where(value < 0, value * p, value * n)"),
    Mutant(PARTS, "return torch.ones_like(value)", "return torch.zeros_like(value)"),
    Mutant(PARTS, "return value * value", "return value.abs() if isinstance(value, Tensor) else value"),
    Mutant(PARTS, "part = Signed(part.positive, part.positive)", "part = Signed(part.negative, part.negative)", BEHIND_RELU),
    Mutant(PARTS, "weight = Signed(weight.positive, weight.positive)", "weight = Signed(weight.negative, weight.negative)", OF_PARTS),
    Mutant(PARTS, "return 1 if known or part.negative == 0 else 0", "return 1", BEHIND_RELU),
    # The table of terms of each rule.
    Mutant(BASIC, "return (Branch((Term(POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE))),)", "return (Branch((Term(POSITIVE, POSITIVE),)),)"),
    Mutant(BASIC, "return (Branch((Term(POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE))),)", "return (Branch((Term(POSITIVE, NEGATIVE), Term(NEGATIVE, POSITIVE))),)"),
    Mutant(BASIC, "return (Branch((Term(POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE))),)", "return (Branch((Term(POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE)), bias=POSITIVE),)"),
    Mutant(BASIC, "Term(NEGATIVE, NEGATIVE)), coefficient=self.alpha)", "Term(NEGATIVE, NEGATIVE)), coefficient=self.beta)"),
    Mutant(BASIC, "coefficient=-self.beta)", "coefficient=self.beta)"),
    Mutant(BASIC, "(Term(POSITIVE, NEGATIVE), Term(NEGATIVE, POSITIVE)), coefficient", "(Term(POSITIVE, NEGATIVE),), coefficient"),
    Mutant(BASIC, "up, down = Signed(1 + self.gamma, 1), Signed(1, 1 + self.gamma)", "up, down = Signed(1, 1 + self.gamma), Signed(1 + self.gamma, 1)"),
    Mutant(BASIC, "up, down = Signed(1 + self.gamma, 1), Signed(1, 1 + self.gamma)", "up, down = Signed(self.gamma, 1), Signed(1, self.gamma)"),
    Mutant(BASIC, "rescales: ClassVar[bool] = True", "rescales: ClassVar[bool] = False", SCALED),
    Mutant(LINEAR, "sizes = relevance.abs()", "sizes = relevance", SCALED),
    Mutant(LINEAR, "sample_sums(sizes * (z > TINY))", "sample_sums(sizes)", SCALED),
    Mutant(LINEAR, "torch.where(enough, every / served.where(enough, 1), 1)", "torch.where(enough, served / every, 1)", SCALED),
    Mutant(LINEAR, "torch.where(enough, every / served.where(enough, 1), 1)", "every / served", SCALED),
    Mutant(BASIC, 'bias=up, where="positive"', 'where="positive"'),
    Mutant(BASIC, 'bias=down, where="negative"', 'bias=up, where="negative"'),
    Mutant(BASIC, "Branch((Term(POSITIVE, up), Term(NEGATIVE, down)), bias=up", "Branch((Term(POSITIVE, up),), bias=up"),
    Mutant(BASIC, 'Branch((Term(POSITIVE, down), Term(NEGATIVE, up)), bias=down, where="negative")', 'Branch((Term(POSITIVE, up), Term(NEGATIVE, down)), bias=down, where="negative")'),
    Mutant(BASIC, "return (Branch((Term(Ones(), Ones()),)),)", "return (Branch((Term(Ones(), Square()),)),)"),
    Mutant(BASIC, "return (Branch((Term(Ones(), Square()),)),)", "return (Branch((Term(Ones(), WHOLE),)),)"),
    Mutant(BASIC, 'Term(FromBound("low"), POSITIVE)', 'Term(FromBound("high"), POSITIVE)'),
    Mutant(BASIC, 'Term(FromBound("low"), POSITIVE), Term(FromBound("high"), NEGATIVE)', 'Term(FromBound("low"), POSITIVE), Term(FromBound("low"), NEGATIVE)'),
    Mutant(BASIC, 'Term(FromBound("low"), POSITIVE), Term(FromBound("high"), NEGATIVE)', 'Term(FromBound("low"), POSITIVE),'),
    Mutant(BASIC, "        return (Branch((Term(WHOLE, WHOLE),)),)", "        return (Branch((Term(WHOLE, WHOLE),), bias=WHOLE),)"),
    Mutant(LINEAR, "            return proportional(relevance, context, self.stabiliser)", "            return proportional(relevance, context)", "tests/rules/test_attnlrp.py"),
    Mutant("propagation/program.py", "                    to_constants = to_constants + amount", "                    to_constants = to_constants", "tests/capture/test_further_inputs.py"),
    Mutant("propagation/plan.py", "**dict.fromkeys(image_independent, True)}", "**dict.fromkeys(image_independent, False)}", "tests/capture/test_further_inputs.py"),
    Mutant("operations/fourier.py", "weight.flip(along).contiguous()", "weight.contiguous()", "tests/capture/test_fourier.py"),
    Mutant("capture/masked.py", "torch.where(self.mask, self.dense.to(y.dtype), y)", "torch.where(self.mask, y, self.dense.to(y.dtype))", "tests/capture/test_everyday.py"),
    Mutant("operations/distance.py", "values.append(scaled(call, value, sign, shape))", "values.append(value)", "tests/capture/test_choices.py"),
    Mutant(LINEAR, "            return proportional(relevance, context, self.stabiliser)", "            return Shares((relevance / 2, relevance / 2))", RESNETS),
    # The one propagation.
    Mutant(LINEAR, "z = y if z is None else _plus(z, y)", "z = y if z is None else z", AWKWARD),
    Mutant(LINEAR, "return z if bias is None else _plus(z, bias)", "return z"),
    Mutant(LINEAR, "self.context.bounds[0 if", "self.context.bounds[1 if"),
    Mutant(LINEAR, "true > 0 if self.branch.where", "true >= -1 if self.branch.where"),
    Mutant(LINEAR, "else true < 0", "else true > 0"),
    Mutant(LINEAR, "ratio = ratio * self.branch.coefficient", "ratio = ratio"),
    Mutant(LINEAR, "else _plus_product(total, back, x)", "else total", AWKWARD),
    Mutant(LINEAR, "return total, None if bias is None else _weighted_sum(ratio, bias)", "return total, None", LEDGER),
    Mutant(LINEAR, "total = handed if total is None else total + handed", "total = handed"),
    Mutant(LINEAR, "absorbed = bias if absorbed is None else absorbed + bias", "absorbed = bias", ZEROS),
    Mutant(LINEAR, "complete = own_bias is None or self.branch.bias == WHOLE", "complete = True"),
    Mutant(LINEAR, "self.context.record.input() if self.context.selected is None else self.context.selected", "self.context.record.input()", NEURONS),
    # Stabilisers.
    Mutant(RULE, "torch.where(z < 0, z - epsilon, z + epsilon)", "(z + epsilon)"),
    Mutant(RULE, "torch.where(z < 0, z - epsilon, z + epsilon)", "torch.where(z <= 0, z - epsilon, z + epsilon)", AT_ZERO),
    Mutant(RULE, "(z <= TINY).logical_and_(z >= -TINY)", "z <= TINY", DEAD),
    Mutant(RULE, "z.masked_fill_(zero, torch.inf) if reuse", "z if reuse", DEAD),
    Mutant(RULE, "else z.masked_fill(zero, torch.inf)", "else z", DEAD),
    Mutant(RULE, "else torch.threshold(z, TINY, torch.inf)", "else z", ZEROS),
    Mutant(RULE, "safe = torch.threshold_(z, TINY, torch.inf)", "safe = z", DEAD),
    Mutant(RULE, "        return Shares((relevance,))", "        return Shares((context.operation.gradient(relevance, context.record, context.tensors)[0],))", RESNETS),
    Mutant(RULE, "return Shares(context.operation.gradient(relevance, context.record, context.tensors))", "return Shares(tuple(g * 2 for g in context.operation.gradient(relevance, context.record, context.tensors)))", WINNERS),
    # Sums and products.
    Mutant(MERGE, "return Shares((first, relevance - first))", "return Shares((relevance - first, first))", f"{IDENTITIES}::test_k_targets_equal_k_calls"),
    Mutant(MERGE, "torch.sub(relevance[0], first, out=both)", "torch.add(relevance[0], first, out=both)", RESIDUALS),
    Mutant(MERGE, "return Shares((first, relevance - first))", "return Shares((first, first))", f"{IDENTITIES}::test_k_targets_equal_k_calls"),
    Mutant(MERGE, "a = context.record.input(0).abs()\n        b", "a = context.record.input(0) + 0\n        b", RESIDUALS),
    Mutant(MERGE, "nan_to_num_(nan=0.5)", "nan_to_num_(nan=0.0)", RESIDUALS),
    Mutant(MERGE, "return Shares((ratio * context.record.input(0), ratio * context.record.input(1)))", "return Shares((ratio * context.record.input(1), ratio * context.record.input(0)))", RESIDUALS),
    Mutant(MERGE, "(a / (a + b).masked_fill(b == 0, 1)).masked_fill(b == 0, 1)", "(b / (a + b).masked_fill(b == 0, 1)).masked_fill(b == 0, 1)", CONSTANTS),
    Mutant(MERGE, "(a / (a + b).masked_fill(b == 0, 1)).masked_fill(b == 0, 1)", "(a / (a + b))", ZEROS),
    Mutant(MERGE, "return Shares((relevance, None) if self.signal == 0 else (None, relevance))", "return Shares((relevance, None) if self.signal == 1 else (None, relevance))", FACTORS),
    Mutant(MERGE, "return Shares((relevance / 2, relevance / 2))", "return Shares((relevance, relevance))", FACTORS),
    Mutant(MERGE, "Gate(signal=0 if second < first else 1)", "Gate(signal=1 if second < first else 0)", FACTORS),
    # The task: signs, rivals, probabilities, and where a model ends.
    Mutant(TASK, "return 2 * target - 1", "return 2 * target.clamp(min=1) - 1", f"{TASKS}::test_it_is_not_is_the_negative_of_it_is_so"),
    Mutant(TASK, "return self.scores(logits).sigmoid()", "return self.scores(logits).softmax(1)", BINARY),
    Mutant(TASK, "return torch.cat([-logits, logits], 1)", "return torch.cat([0 * logits, logits], 1)", BINARY),
    Mutant(TASK, "return logits.sigmoid()", "return logits.softmax(1)", FINDINGS),
    Mutant(TASK, "return self.own_rivals(target, count) if against is None else super().rivals(", "return all_others(target, count) if against is None else super().rivals(", FINDINGS),
    Mutant(EXPLAINED, "good = known & images.isfinite().flatten(1).all(1)", "good = known", f"{RECORDED}::test_a_pixel_that_nobody_reads_counts_too"),
    Mutant(EXPLAINED, "(chosen < parts.task.classes)", "(chosen <= parts.task.classes)", f"{RECORDED}::test_what_cannot_be_explained_is_nan"),
    Mutant(EXPLAINED, "(entry.absorbed.abs() for entry", "(entry.absorbed for entry", f"{RECORDED}::test_lost_is_what_never_arrived"),
    Mutant(EXPLAINED, "(~some & usual)", "(~some & ~usual)", f"{RECORDED}::test_rivals_as_an_input"),
    Mutant(EXPLAINED, "rivals & all_others(columns, count)", "rivals", f"{RECORDED}::test_rivals_as_an_input"),
    Mutant(EXPLAINED, ".signed(parts.task.signs(chosen))", "", f"{RECORDED}::test_a_binary_task_explains_both_classes"),
    Mutant("seeds.py", "others = others.where(rivals.any(-1, keepdim=True), 0)", "others = others + 0", f"{TASKS}::test_seeds_of_a_binary_question"),
    Mutant("passes.py", "return value * signs.to(value.dtype)", "return value * signs.abs().to(value.dtype)", f"{TASKS}::test_it_is_not_is_the_negative_of_it_is_so"),
    Mutant("passes.py", "return sample_sums(relevance.abs()) <= least", "return sample_sums(relevance.abs()) < 0 * least", f"{TASKS}::test_a_map_whose_relevance_cancelled_says_so_every_time"),
    Mutant("capture/end.py", "negated = not link.rising", "negated = False", BINARY),
    Mutant("capture/end.py", "alone = dim > 0 and all(", "alone = dim > 0 or all(", f"{TASKS}::test_a_softmax_over_groups_of_classes"),
    Mutant("capture/head.py", "if not wanted and prod(node.shape) == 1:", "if wanted and prod(node.shape) == 1:", BINARY),
    Mutant("capture/head.py", "_turned(found) if weight[0, 1] < 0 else found", "found if weight[0, 1] < 0 else _turned(found)", BINARY),
    Mutant("capture/link.py", "(y - summand) / factor", "(y + summand) / factor", "tests/models/test_logits.py"),
    # Attention and normalisation.
    Mutant(ATTENTION, "relevance = relevance / 2", "relevance = relevance", PRODUCTS),
    Mutant(ATTENTION, "x * summed_to(ratio @ y.mT, a.shape)", "y * summed_to(ratio @ y.mT, a.shape)", PRODUCTS),
    Mutant(ATTENTION, "y * summed_to(x.mT @ ratio, b.shape)", "y * summed_to(-(x.mT @ ratio), b.shape)", PRODUCTS),
    Mutant(ATTENTION, "divide(relevance, z, self.rule.stabiliser) * branch.coefficient", "divide(relevance, z, self.rule.stabiliser)", PRODUCTS),
    Mutant(ATTENTION, "divide(relevance, z, self.rule.stabiliser) * branch.coefficient", "divide(relevance, z) * branch.coefficient", PRODUCTS),
    Mutant(ATTENTION, "x * (relevance - s * relevance.sum(context.operation.axis, keepdim=True))", "x * (relevance + s * relevance.sum(context.operation.axis, keepdim=True))", SOFTMAX),
    Mutant(ATTENTION, "x * (relevance - s * relevance.sum(context.operation.axis, keepdim=True))", "x * relevance", SOFTMAX),
    Mutant(ATTENTION, "return Shares((share,), sample_sums(relevance - share))", "return Shares((share,))", BALANCE),
    Mutant(ATTENTION, "x = torch.where(s > 0, context.record.input(), 0)", "x = context.record.input()", MASKS),
    Mutant(NORM, "return Shares((back * context.record.input(),))", "return Shares((back,))", FACTORS),
    Mutant(NORM, "divide(relevance, context.record.result()), context.record", "relevance, context.record", FACTORS),
    # Transposes: of linear operations, of averages, of what moves values.
    Mutant(WEIGHTED, "return r @ weight", "return r @ weight.abs()"),
    Mutant(WEIGHTED, "F.pad(x, [-p for p in self.extra])", "F.pad(x, [-p for p in self.extra[::-1]])", AWKWARD),
    Mutant(WEIGHTED, "size + 2 * p - d * (k - 1) - 1 - (out - 1) * s", "0 * (size + 2 * p - d * (k - 1) - 1 - (out - 1) * s)", AWKWARD),
    Mutant(WEIGHTED, "+= self.extra[2 * axis] + self.extra[2 * axis + 1]", "+= self.extra[2 * axis]", AWKWARD),
    Mutant(WEIGHTED, "exchanged(weight, self.groups), None)", "exchanged(weight, self.groups).flip(2), None)", TRANSPOSED),
    Mutant(WEIGHTED, "exchanged(weight, self.groups), None)", "exchanged(weight, self.groups).roll(1, 0), None)", TRANSPOSED),
    Mutant(WEIGHTED, "starts = self.extra[0::2][::-1] or (0,) * len(self.stride)", "starts = (0,) * len(self.stride)", f"{LINEAR_TWINS}::test_zeros_before_a_transposed_convolution"),
    Mutant(WEIGHTED, "x = x.narrow(axis, start, shape[axis])", "x = x.narrow(axis, x.shape[axis] - shape[axis], shape[axis])", TRANSPOSED),
    Mutant(WEIGHTED, 'overlap."""\n        return False', 'overlap."""\n        return True', "tests/test_capture.py::test_batch_norm"),
    Mutant(WEIGHTED, "return not any(self.padding) and not any(self.extra)", "return True", "tests/test_capture.py::test_batch_norm"),
    Mutant(FOLDS, "left == right and not isinstance(convolution, TransposedConvolution)", "left == right", f"{LINEAR_TWINS}::test_zeros_before_a_transposed_convolution"),
    Mutant(AVERAGE, "return y if weight == 1.0 else y * weight", "return y", OF_PARTS),
    Mutant(AVERAGE, "return (r / prod(shape[axis] for axis in self.axes)).expand(r.shape[0], *shape[1:])", "return r.expand(r.shape[0], *shape[1:])", AVERAGES),
    Mutant(POOLING, "winners = record.remembered().expand(gradient.shape).flatten(0, 1)", "winners = record.remembered().expand(gradient.shape).flatten(0, 1) * 0", WINNERS),
    Mutant(POOLING, "back.scatter_add_(-1, winners", "back.scatter_(-1, winners", f"{ROUTING_TWINS}::test_adaptive_maximum"),
    Mutant(POOLING, "back.scatter_(axis, record.remembered().expand(gradient.shape), gradient)", "back.scatter_(axis, 0 * record.remembered().expand(gradient.shape), gradient)", f"{ROUTING_TWINS}::test_maximum"),
    Mutant("operations/pooling.py", "sorted(axes, reverse=True)", "sorted(axes)", f"{ROUTING_TWINS}::test_maximum"),
    Mutant(INDEXING, "back.index_add_(2, tensors[self.index], gradient.flatten(2))", "back.index_copy_(2, tensors[self.index], gradient.flatten(2))", f"{ROUTING_TWINS}::test_rearrangement"),
    Mutant(INDEXING, "back[..., 1:].reshape", "back[..., :-1].reshape", f"{ROUTING_TWINS}::test_rearrangement"),
    Mutant(SHAPE, "back = sorted(range(len(self.axes)), key=self.axes.__getitem__)", "back = list(self.axes)", MOVES),
    Mutant(INDEXING, "[-amount for amount in self.amounts]", "[-amount for amount in (self.amounts[1], self.amounts[0], *self.amounts[2:])]", MOVES),
    Mutant(INDEXING, "return torch.split(gradient, sizes, self.axis + 1)", "return torch.split(gradient, sizes, self.axis + 1)[::-1]", SIDES),
    Mutant(INDEXING, "gradient.roll([-shift for shift in self.shifts]", "gradient.roll([shift for shift in self.shifts]", MOVES),
    Mutant(SHAPE, "return (summed_to(gradient, record.shapes[0]),)", "return (summed_to(gradient, record.shapes[0]) / 2,)", COPIES),
    Mutant(INDEXING, "start = 0 if self.before is None else tensors[self.before].shape[self.axis]", "start = 0", MOVES),
    Mutant(INDEXING, "g, sizes, self.axis, self.start, self.end, self.step", "g, sizes, self.axis, self.start, self.end, 1 if self.step == 1 else self.step - 1", MOVES),
    Mutant(ELEMENTWISE, "record.result().expand_as(gradient), 0),)", "record.result().expand_as(gradient), -1),)", SELECTIONS),
    Mutant("operations/activation.py", "return (1 + x.square()).reciprocal()", "return (1 + x.abs()).reciprocal_()", "tests/operations/test_elementwise.py::test_gradient"),
    Mutant(ELEMENTWISE, "(y > self.low) & (y < self.high)", "(y > self.low)", "tests/operations/test_elementwise.py::test_gradient"),
    Mutant(OPERATIONS, "summed_to(gradient @ b.mT, record.shapes[0])", "summed_to(gradient @ b.mT, record.shapes[0]) * 2", ATTENTION_GRADIENTS),
    Mutant(OPERATIONS, "(back(gradient, s, self.axis, s.dtype),)", "(gradient * s,)", ATTENTION_GRADIENTS),
    # Volumes, views and signals.
    Mutant(POOLING, "winners = record.remembered().flatten(-axes)", "winners = 0 * record.remembered().flatten(-axes)", f"{AXES_TWINS}::test_adaptive_max_over_a_volume"),
    Mutant(FOLDS, "axis = -1 - len(linear.stride) if", "axis = 1 if", f"{AXES}::test_views_in_the_batch_and_in_a_loop_have_the_same_map"),
    Mutant("selection.py", "positions = tuple(range(-axes, 0))", "positions = tuple(range(3, gradient.ndim))", f"{AXES}::test_two_equal_views_are_a_photo"),
    Mutant("channels.py", "1 if operation.groups == x.shape[axis] else operation.groups", "operation.groups", f"{AXES_TWINS}::test_convolution_of_windows"),
    Mutant("channels.py", "1 if operation.groups == x.shape[axis] else operation.groups", "1", CHANNELS),
    Mutant("channels.py", "if not _differ([values for _, values in read]):", "if False:", CHANNELS),
    Mutant("bounds.py", "if axis != channels]", "if axis != 1]", CHANNELS),
    # Selection and the program.
    Mutant("selection.py", "after > torch.finfo(after.dtype).tiny * before", "after > 0", f"{SELECTION}::test_what_leaves_next_to_nothing_does_not_overflow"),
    Mutant("selection.py", "alpha * (before / after.where(enough, 1)), 1)", "alpha, 1)", SELECTIONS),
    Mutant(RULE, "return relevance / z.masked_fill(z <= TINY if non_negative else z.abs() <= TINY, torch.inf)", "return relevance / z", f"{LIVE}::test_dead_neurons_and_black_pictures_give_no_nan"),
    Mutant(MERGE, "0.5, a / both.masked_fill(both == 0, 1))", "0.5, a.detach() / both.masked_fill(both == 0, 1))", LIVE),
    Mutant("capture/lowering.py", "yield spec.arg.name, value if live else value.detach()", "yield spec.arg.name, value.detach()", LIVE),
    Mutant("operations/base.py", "return not (torch.is_grad_enabled() and any(value.requires_grad for value in values))", "return True", LIVE),
    Mutant("selection.py", "return not (step.reads_pixels or mixed)", "return not mixed", f"{SELECTION}::test_stages_of_dense_layers"),
    Mutant("selection.py", "return not (step.reads_pixels or mixed)", "return not step.reads_pixels", f"{SELECTION}::test_dense_layers_are_selected_under_rules_of_one_sign_only"),
    Mutant("selection.py", "return mean.masked_fill(mean.abs() <= ROUNDING * torch.finfo(mean.dtype).eps * size, 0)", "return mean", f"{SELECTION}::test_gradients_that_cancel_select_nothing"),
    Mutant("seeds.py", "torch.where(have > 0, (has.clamp(min=0) / have).clamp(max=1), 1)", "torch.ones_like(have)", f"{SELECTION}::test_the_rivals_count_no_more_than_a_target_that_trails"),
    Mutant("propagation/plan.py", "return (inputs[self.rule.signal],)", "return inputs", f"{SELECTION}::test_a_gate_of_places_is_no_last_convolution"),
    Mutant("rules/linear.py", "any(isinstance(term.input, Signed)", "any(bool(term)", f"{SELECTION}::test_rules_that_do_not_look_at_inputs_refuse_to_select_them"),
    Mutant("capture/modules.py", "return not readers or any(", "return any(", "tests/test_layers.py::test_the_logits_of_a_model_that_ends_in_a_softmax"),
    Mutant(PROGRAM, "share.add_(other) if fresh and may_overwrite(share, other) else other + share", "share", RESNETS),
    Mutant(PROGRAM, "fresh = isinstance(node.operation, WeightedLinear)", "fresh = True", f"{SELECTION}::test_the_gradient_of_a_value_that_several_sums_read"),
    Mutant(PROGRAM, "fresh=shares.fresh and HookPoint(name, node.name) not in wanted", "fresh=shares.fresh", "tests/test_layers.py::test_a_norm_that_is_read_around"),
    Mutant(HANDING, "negated = -context.tensors[operation.weight]", "negated = context.tensors[operation.weight]", DUAL),
    Mutant(HANDING, "second = rule.propagate(relevance[dual_from:], _dual(replace(context, selected=other)))", "second = rule.propagate(relevance[dual_from:], replace(context, selected=other))", DUAL),
    Mutant(PROGRAM, "amount = left if passes else sample_sums(share)", "amount = left", BALANCE),
    Mutant(HANDING, "left = relevance if selector is None else selector.select(name, relevance)", "left = relevance", SELECTIONS),
    Mutant(PLACED, "made = (weight != 0).to(weight) if reads else part(weight)", "made = part(weight)", f"{CHOICES}::test_flat_and_w_square_of_a_resampling"),
    Mutant(CONDITION, "(self.first, gradient * chosen),", "(self.first, gradient),", f"{CHOICES}::test_where_gives_to_what_was_chosen"),
    Mutant(CONDITION, "(self.second, gradient * ~chosen),", "(self.second, gradient * chosen),", f"{CHOICES}::test_where_gives_to_what_was_chosen"),
    Mutant("rules/condition.py", "inputs: list[Tensor | None] = [None, *shares[1:]] if asks else [*shares]", "inputs: list[Tensor | None] = [*shares]", f"{CHOICES}::test_what_a_constant_was_chosen_for_is_the_bias"),
    Mutant("rules/condition.py", "tuple(inputs), lost if context.operation.first or context.operation.second else None", "tuple(inputs)", f"{CHOICES}::test_what_a_constant_was_chosen_for_is_the_bias"),
    Mutant("rules/condition.py", "ratio = divide(relevance, context.record.result())", "ratio = relevance", f"{CHOICES}::test_samples_share_by_what_each_value_contributes"),
    Mutant(CONDITION, 'rule: ClassVar[str] = "Hold"', 'rule: ClassVar[str] = "Pass"', f"{CHOICES}::test_one_element_in_one_out_passes_everything"),
    Mutant("operations/merge.py", 'rule_at_pixels: ClassVar[str | None] = "Pass"', "rule_at_pixels: ClassVar[str | None] = None", f"{CHOICES}::test_coordinates_beside_the_pixels_and_a_mean_image_leave_the_first_layer_first"),
    Mutant("capture/graph.py", "(Routing, Affine, Shift, Extend, *RESIZING)", "(Routing, Affine, Shift, *RESIZING)", f"{CHOICES}::test_coordinates_beside_the_pixels_and_a_mean_image_leave_the_first_layer_first"),
    Mutant(OPERATIONS, "shares = (x - torch.logsumexp(x, self.axes, keepdim=True)).exp()", "shares = x.exp()", f"{CHOICES}::test_soft_maximum_shares_by_the_softmax"),
    Mutant(POWER, "(p * x ** (p - 1)).masked_fill((x == 0) & (p < 1), 0)", "(p * x ** (p - 1))", "tests/operations/test_power.py"),
    Mutant(POWER, "return x.sign()", "return x.sign().abs()", f"{SPELT}::test_selection_gradient"),
    Mutant(POOLING, "back.scatter_(axis, record.remembered().expand(gradient.shape), gradient)", "back.scatter_(axis, record.remembered().expand(gradient.shape), gradient.flip(axis))", f"{CHOICES}::test_k_greatest"),
    Mutant(SAMPLING, "places = record.remembered().flatten(-2)", "places = record.remembered().flatten(-2).flip(-1)", f"{CHOICES}::test_unpooling_takes_from_the_places"),
    Mutant("operations/recurrent.py", "new = self.apply(Tanh(), self.part(gates, 2))", "new = self.apply(Sigmoid(), self.part(gates, 2))", f"{CHOICES}::test_recurrent_layers_step_by_step"),
    Mutant("operations/recurrent.py", "for t in reversed(range(steps)) if backwards else range(steps):", "for t in range(steps):", f"{SPELT}::test_recurrent_layers"),
    Mutant("operations/condition.py", 'keeps_above = (how in (">", ">=")) == (value == first)', 'keeps_above = how in (">", ">=")', f"{SPELT}::test_spellings_agree_and_the_ledger_closes"),
    Mutant("capture/exporting.py", "if not torch.allclose(own, beyond[: len(own)], rtol=0, atol=rounding, equal_nan=True):", "if not len(own):", "tests/capture/test_everyday.py::test_the_true_reason"),
    Mutant("capture/reading.py", "if not answer.from_images or answer.allowed:", "if True:", "tests/capture/test_everyday.py::test_the_true_reason"),
    Mutant("capture/wrappers.py", "known[id(value)] = _traceable(value) if value.is_inference() else value", "known[id(value)] = value", "tests/capture/test_wrappers.py"),
    # What surrounds the mathematics.
    Mutant("serve/guard.py", '{"cross-site", "same-site"}', '{"cross-site"}', "tests/serve/test_guard.py"),
    Mutant("serve/guard.py", "_place(origin) != host.lower()", "_place(origin) != host", "tests/serve/test_guard.py"),
    Mutant("serve/worker.py", "max(1, math.ceil(self._taken * self._usual))", "1", "tests/serve/test_worker.py"),
    Mutant("cache/folder.py", "        if excess <= 0:\n            break\n", "", "tests/cache/test_folder.py::test_no_more_goes_than_must"),
    Mutant("cache/folder.py", "> ABANDONED", "> 0", "tests/cache/test_folder.py::test_a_temporary_file_of_another_process_stays"),
    Mutant("batching.py", '1 if method.passes == "signed" else 3', "1", "tests/test_batching.py::test_how_much_memory_is_needed"),
    Mutant("passes.py", "ENOUGH, TOO_MUCH = 0.5, 3.0", "ENOUGH, TOO_MUCH = 0.45, 3.0", "tests/test_passes.py::test_from_where_on_it_warns"),
    Mutant("passes.py", "ENOUGH, TOO_MUCH = 0.5, 3.0", "ENOUGH, TOO_MUCH = 0.5, 3.3", "tests/test_passes.py::test_from_where_on_it_warns"),
    Mutant("layers.py", 'label in (name, name.removesuffix("#1"))', "label == name", "tests/test_layers.py::test_the_first_call_of_a_module_that_is_called_once"),
    Mutant("models/classifier.py", "if channels == 1:", "if channels == 0:", "tests/models/test_classifier.py::TestPhoto"),
    Mutant("geometry.py", "[0, 0] >= 0.5", "[0, 0] > 0.5", "tests/test_geometry.py::test_a_pixel_of_which_half_is_the_object_belongs_to_it"),
    Mutant("evaluation/browsing.py", "to_pylist()[::count]", "to_pylist()[: len(table) // count]", "tests/evaluation/test_page.py::test_the_data_are_the_rows_and_the_maps"),
    Mutant("evaluation/browsing.py", "| {*targets, *predicted}", "| {*targets}", "tests/evaluation/test_page.py::test_the_data_are_the_rows_and_the_maps"),
    Mutant("evaluation/browsing.py", "| {*targets, *predicted}", "| {*predicted}", "tests/evaluation/test_page.py::test_the_data_are_the_rows_and_the_maps"),
    Mutant("evaluation/browsing.py", "if 0 <= index < len(names)", "if 0 <= index", "tests/evaluation/test_page.py::test_the_data_are_the_rows_and_the_maps"),
    Mutant("evaluation/browsing.py", "if known else ()", "", "tests/evaluation/test_page.py::test_a_run_without_pictures_has_a_page_too"),
    Mutant("evaluation/statistics.py", " * (1 - 1e-12)", "", "tests/evaluation/test_statistics.py::TestSignFlipTest"),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "noticed", "SURVIVED" or "stale", by which test, and in how many seconds."""

    mutant: Mutant
    verdict: str
    test: str
    seconds: float

    def __str__(self) -> str:
        change = f"{' '.join(self.mutant.right.split())[:58]} -> {' '.join(self.mutant.wrong.split())[:58]}"
        return f"{self.verdict:9} {self.seconds:5.0f} s  {self.mutant.file:26} {change:120} {self.test}"


class Workbench:
    """A copy of the package, in which one line at a time is wrong.

    Args:
        folder: of the copy.
        quick: run only those tests that should notice.
    """

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder, self.quick = folder, quick
        self._sound: set[str] = set()

    def outcome(self, mutant: Mutant) -> Outcome:
        """Edit the copy, run the tests until one fails, and put the line back."""
        path = self.folder / "src" / "clarp" / mutant.file
        source = path.read_text(encoding="utf-8")
        if source.count(mutant.right) != 1:
            note = f"the line is there {source.count(mutant.right)} times, expected once"
            return Outcome(mutant, "stale", note, 0)
        begin = time.monotonic()
        for tests in (mutant.first, *(() if self.quick else TESTS)):
            self._check(tests)
            path.write_text(source.replace(mutant.right, mutant.wrong), encoding="utf-8")
            failed = self._first_failure(tests)
            path.write_text(source, encoding="utf-8")
            if failed:
                return Outcome(mutant, "noticed", failed, time.monotonic() - begin)
        return Outcome(mutant, "SURVIVED", "", time.monotonic() - begin)

    def _check(self, tests: str) -> None:
        """Tests that fail without any mutant would notice everything."""
        if tests not in self._sound and (failed := self._first_failure(tests)):
            raise SystemExit(f"{failed} fails without any mutant; mend that first.")
        self._sound.add(tests)

    def _first_failure(self, tests: str) -> str:
        """The first of these tests that fails, "" if none does."""
        log = self.folder / "log.txt"
        child = os.fork()  # what is imported already need not be imported again
        if not child:
            code = 70
            try:
                code = self._pytest(tests, log)
            except BaseException:  # noqa: BLE001  whatever it is, the parent reads it in the log
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return ""
        text = log.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if not lines:
            raise SystemExit(f"{tests} did not run (exit code {code}):\n{text[-2000:]}")
        return lines[0].split(" ")[1]

    def _pytest(self, tests: str, log: Path) -> int:
        with log.open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder / "src"))
        sys.dont_write_bytecode = True
        return int(pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=no", tests]))


def copied(folder: Path) -> Path:
    """A copy of what the tests need."""
    leave = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in ("src", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def chosen(words: Sequence[str]) -> Iterator[Mutant]:
    """The mutants of the table with one of these words in their file or their line; all for no words."""
    for mutant in MUTANTS:
        if not words or any(word in f"{mutant.file} {mutant.right}" for word in words):
            yield mutant


def main() -> int:
    """Run all, print a line for each, and fail for survivors and stale lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="only the tests that should notice, not all that may"
    )
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their file or line")
    arguments = parser.parse_args()
    torch.export.export(
        torch.nn.ReLU(), (torch.zeros(1),)
    )  # its imports take seconds, and every mutant needs them
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        bench = Workbench(copied(Path(name)), quick=arguments.quick)
        for mutant in chosen(arguments.words):
            outcomes.append(bench.outcome(mutant))
            sys.stdout.write(f"{outcomes[-1]}\n")
            sys.stdout.flush()
    wrong = [outcome for outcome in outcomes if outcome.verdict != "noticed"]
    sys.stdout.write(f"{len(outcomes) - len(wrong)} of {len(outcomes)} mutants were noticed\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
