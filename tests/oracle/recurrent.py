"""Recurrent layers and their LRP, step by step (Arras et al. 2017 and 2019): numpy, float64, one sample, one layer, one direction."""

import numpy as np

from oracle.linear import Array

Weights = tuple[Array, Array, Array, Array]
"""w_ih, w_hh, b_ih, b_hh as PyTorch has them."""


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def dense(x: Array, w: Array, b: Array, R: Array, epsilon: float) -> Array:
    """LRP-epsilon of ``z = w x + b``, one output after the other."""
    found = np.zeros_like(x)
    for j in range(len(R)):
        z = float(sum(w[j, i] * x[i] for i in range(len(x))) + b[j])
        z += epsilon if z >= 0 else -epsilon
        for i in range(len(x)):
            found[i] += x[i] * w[j, i] / z * R[j]
    return found


def halves(a: Array, b: Array, R: Array) -> tuple[Array, Array]:
    """A sum's relevance by the size of its parts, half each where both are zero."""
    share = np.array([0.5 if p == q == 0 else abs(p) / (abs(p) + abs(q)) for p, q in zip(a, b, strict=True)])
    return R * share, R * (1 - share)


def lstm(x: Array, weights: Weights, R: Array, epsilon: float) -> tuple[Array, Array]:
    """The last output of an LSTM over (T, C), and the relevance (T, C) of its inputs."""
    w, u, b, c = weights
    n, features = len(R), x.shape[1]
    h, cell, kept = np.zeros(n), np.zeros(n), []
    for row in x:
        i, f, g, o = np.split(w @ row + u @ h + b + c, 4)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        kept.append((row, h, f * cell, i * g))
        cell = f * cell + i * g
        h = o * np.tanh(cell)
    both, bias = np.concatenate([w, u], 1)[2 * n : 3 * n], (b + c)[2 * n : 3 * n]
    found, to_h, to_cell = np.zeros_like(x), R, np.zeros(n)
    for t in reversed(range(len(x))):
        row, before, old, new = kept[t]
        to_cell, to_new = halves(old, new, to_cell + to_h)
        share = dense(np.concatenate([row, before]), both, bias, to_new, epsilon)
        found[t], to_h = share[:features], share[features:]
    return h, found


def gru(x: Array, weights: Weights, R: Array, epsilon: float) -> tuple[Array, Array]:
    """The last output of a GRU over (T, C), and the relevance (T, C) of its inputs."""
    w, u, b, c = weights
    n = len(R)
    h, kept = np.zeros(n), []
    for row in x:
        r, z = np.split(sigmoid((w @ row + u @ h + b + c)[: 2 * n]), 2)
        own, other = w[2 * n :] @ row + b[2 * n :], r * (u[2 * n :] @ h + c[2 * n :])
        new = np.tanh(own + other)
        kept.append((row, h, own, other, (1 - z) * new, z * h))
        h = (1 - z) * new + z * h
    found, to_h = np.zeros_like(x), R
    for t in reversed(range(len(x))):
        row, before, own, other, new, old = kept[t]
        to_new, to_old = halves(new, old, to_h)
        to_own, to_other = halves(own, other, to_new)
        found[t] = dense(row, w[2 * n :], b[2 * n :], to_own, epsilon)
        to_h = to_old + dense(before, u[2 * n :], c[2 * n :], to_other, epsilon)
    return h, found


def rnn(x: Array, weights: Weights, R: Array, epsilon: float) -> tuple[Array, Array]:
    """The last output of a plain recurrent layer (tanh) over (T, C), and the relevance (T, C) of its inputs."""
    w, u, b, c = weights
    features = x.shape[1]
    h, states = np.zeros(len(R)), []
    for row in x:
        states.append(h)
        h = np.tanh(w @ row + u @ h + b + c)
    found, to_h = np.zeros_like(x), R
    for t in reversed(range(len(x))):
        joint = dense(np.concatenate([x[t], states[t]]), np.concatenate([w, u], 1), b + c, to_h, epsilon)
        found[t], to_h = joint[:features], joint[features:]
    return h, found
