"""Attention by hand: softmax, products of two values, and a small vision transformer, sample by sample.

Arrays are float64 numpy arrays. Products are taken apart into single contributions ``a_ik b_kj``, the softmax
into its Jacobian.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracle import linear
from oracle.linear import Affine, Array, Rule
from oracle.nonlinear import add_ratio


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_taylor(x: Array, R: Array) -> Array:
    """``R_i = sum_j x_i J_ji / s_j R_j`` with the Jacobian ``J_ji = s_j (1[i = j] - s_i)``, row by row."""
    result = np.zeros_like(x)
    for index in np.ndindex(*x.shape[:-1]):
        s = softmax(x[index])
        jacobian = np.diag(s) - np.outer(s, s)
        for i in range(x.shape[-1]):
            terms = [jacobian[j, i] / s[j] * R[index][j] for j in range(x.shape[-1]) if s[j] > 0]
            result[index][i] = x[index][i] * sum(terms) if s[i] > 0 else 0.0
    return result


def contributions(a: Array, b: Array, R: Array, rule: Rule) -> Array:
    """The relevance of each ``a_ik b_kj`` in ``z_ij = sum_k a_ik b_kj``, (n, d, m)."""
    result = np.zeros((a.shape[0], a.shape[1], b.shape[1]))
    for i, j in np.ndindex(a.shape[0], b.shape[1]):
        one = Affine(b[:, j][None], np.zeros(1), np.ones((1, len(b))), (1,))
        result[i, :, j] = rule(one, a[i], np.array([R[i, j]]))
    return result


def halves(a: Array, b: Array, R: Array, rule: Rule) -> tuple[Array, Array]:
    """Half of each contribution's relevance to either factor."""
    parts = contributions(a, b, R, rule)
    return parts.sum(2) / 2, parts.sum(0) / 2


def add_constant(x: Array, constant: Array, R: Array) -> Array:
    """The value's part of a sum with a constant, split by size; a constant of zero gets nothing."""
    left, right = add_ratio(x.reshape(-1), constant.reshape(-1), R.reshape(-1))
    return np.where(constant.reshape(-1) == 0, left + right, left).reshape(x.shape)


class Attention(nn.Module):
    """Self-attention over (B, T, D), in several spellings that mean the same."""

    def __init__(self, width: int, heads: int, spelling: str) -> None:
        super().__init__()
        self.heads, self.spelling = heads, spelling
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "multihead":  # the batch becomes the second axis, and heads join it
            y, _ = F.multi_head_attention_forward(
                *[x.transpose(0, 1)] * 3, x.shape[-1], self.heads, self.qkv.weight, self.qkv.bias, None, None,
                False, 0.0, self.out.weight, self.out.bias, training=False, need_weights=False,
            )  # fmt: skip
            return y.transpose(0, 1)
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.spelling == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.spelling == "windows":  # heads in the batch's axis
            q, k, v = (part.reshape(batch * self.heads, tokens, -1) for part in (q, k, v))
            scores = torch.bmm(q * (width // self.heads) ** -0.5, k.transpose(1, 2))
            y = torch.bmm(scores.softmax(-1), v).view(batch, self.heads, tokens, -1)
        elif self.spelling == "einsum":
            scores = torch.einsum("bhid,bhjd->bhij", q * (width // self.heads) ** -0.5, k)
            y = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
        else:
            scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
            y = scores.softmax(dim=-1) @ v
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


SPELLINGS = ("explicit", "sdpa", "multihead", "windows", "einsum")


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int, spelling: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, spelling)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Patches, a class token, position embeddings, blocks, and a dense head on the class token."""

    def __init__(
        self, *, size: int = 6, patch: int = 3, width: int = 4, heads: int = 2, depth: int = 1, classes: int = 3,
        spelling: str = "explicit",
    ) -> None:  # fmt: skip
        super().__init__()
        self.patches = nn.Conv2d(2, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, spelling) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


@dataclass(frozen=True)
class Twin:
    """Which formula each kind of operation of a transformer follows; ``hold``: the attention weights are constants."""

    convolution: Rule
    dense: Rule
    product: Rule
    hold: bool


TINY = partial(linear.epsilon, epsilon=1e-6)

Back = Callable[[Array], Array]


def _numpy(parameter: Tensor) -> Array:
    array: Array = parameter.detach().double().numpy()
    return array


def _dense(layer: nn.Linear, x: Array, rule: Rule) -> tuple[Array, Back]:
    """A dense layer at every token."""
    matrix = Affine(
        _numpy(layer.weight), _numpy(layer.bias), np.ones(layer.weight.shape), (layer.out_features,)
    )
    y = np.stack([matrix(row) for row in x])
    return y, lambda R: np.stack([rule(matrix, row, r) for row, r in zip(x, R, strict=True)])


def _norm(layer: nn.LayerNorm, x: Array) -> Array:
    """A layer norm, through which relevance passes unchanged."""
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return _numpy(layer.weight) * centred / deviation + _numpy(layer.bias)


def _attention(layer: Attention, x: Array, twin: Twin) -> tuple[Array, Back]:
    tokens, width = x.shape
    each = width // layer.heads
    qkv, qkv_back = _dense(layer.qkv, x, twin.dense)
    joined = np.zeros((tokens, width))
    heads = []
    for h in range(layer.heads):
        q, k, v = (qkv[:, part * width + h * each : part * width + (h + 1) * each] for part in range(3))
        scores = q @ k.T / np.sqrt(each)
        weights = softmax(scores)
        joined[:, h * each : (h + 1) * each] = weights @ v
        heads.append((q, k, v, scores, weights))
    y, out_back = _dense(layer.out, joined, twin.dense)

    def back(R: Array) -> Array:
        R, below = out_back(R), np.zeros_like(qkv)
        for h, (q, k, v, scores, weights) in enumerate(heads):
            own = R[:, h * each : (h + 1) * each]
            parts = contributions(weights, v, own, twin.product)
            of_q = of_k = np.zeros_like(q)
            of_v = parts.sum(0)
            if not twin.hold:
                of_v = of_v / 2
                of_scores = softmax_taylor(scores, parts.sum(2) / 2)
                of_q, transposed = halves(q / np.sqrt(each), k.T, of_scores, twin.product)
                of_k = transposed.T
            for part, relevance in enumerate((of_q, of_k, of_v)):
                below[:, part * width + h * each : part * width + (h + 1) * each] = relevance
        return qkv_back(below)

    return y, back


def _residual(x: Array, y: Array, back: Back) -> tuple[Array, Back]:
    """``x + y`` with y computed from x."""

    def both(R: Array) -> Array:
        left, right = add_ratio(x.reshape(-1), y.reshape(-1), R.reshape(-1))
        return left.reshape(x.shape) + back(right.reshape(x.shape))

    return x + y, both


def _chain(*backs: Back) -> Back:
    def all_back(R: Array) -> Array:
        for back in backs:
            R = back(R)
        return R

    return all_back


def walk(model: Transformer, image: Array, twin: Twin) -> tuple[Array, Back]:
    """The logits (N,) of one image (C, H, W), and the way back from their relevance to the image's."""
    convolution = linear.affine(model.patches, image.shape)
    patches = convolution(image.reshape(-1)).reshape(convolution.output_shape)
    tokens = patches.reshape(len(patches), -1).T
    joined = np.concatenate([_numpy(model.token)[0], tokens])
    position = _numpy(model.position)[0]

    def first(R: Array) -> Array:
        R = add_constant(joined, position, R)[1:].T
        return twin.convolution(convolution, image.reshape(-1), R.reshape(-1)).reshape(image.shape)

    x, backs = joined + position, [first]
    for block in model.blocks:
        y, attention_back = _attention(block.attention, _norm(block.norm1, x), twin)
        x, back = _residual(x, y, attention_back)
        backs.append(back)
        y, up_back = _dense(block.up, _norm(block.norm2, x), twin.dense)
        y, down_back = _dense(block.down, _numpy(F.gelu(torch.from_numpy(y))), twin.dense)
        x, back = _residual(x, y, _chain(down_back, up_back))
        backs.append(back)
    y = _norm(model.norm, x)
    logits, head_back = _dense(model.head, y[:1], twin.dense)

    def all_back(R: Array) -> Array:
        at_tokens = np.zeros_like(y)
        at_tokens[:1] = head_back(R[None])
        return _chain(*reversed(backs))(at_tokens)

    return logits[0], all_back
