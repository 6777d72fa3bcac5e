"""Covered pixels continued from their surroundings: ROAD's linear imputation."""

import torch
from torch import Tensor
from torch.nn import functional as F

_AT_ONCE = 1 << 18  # values; so many stay in a processor's cache from one step to the next


def inpainted(images: Tensor, covered: Tensor) -> Tensor:
    """Images whose covered pixels are the weighted means of their neighbours (Rong 2022, arXiv 2202.00449).

    Each covered pixel is ``sum_j w_j x_j / sum_j w_j`` over the up to eight neighbours inside of the image,
    w_j = 1/6 for those beside, above and below and 1/12 for diagonal ones, covered or not: a linear system,
    symmetric and positive definite, solved by conjugate gradients. In float32 the residual falls to 7e-5
    of the right-hand side, in float64 to 4e-10. An image that is covered whole becomes 0, the mean colour.

    Args:
        images: (n, C, H, W), any floating type.
        covered: (n, 1, H, W) bool.

    Returns:
        (n, C, H, W); pixels that are not covered are unchanged.
    """
    if not bool(covered.any()):
        return images
    top, left, height, width = _boxes(covered)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    place = (number, slice(None), rows[:, :, None], columns[:, None, :])
    dtype = torch.promote_types(images.dtype, torch.float32)
    # An index on both sides of a slice puts the channels last.
    near = images[place].movedim(-1, 1).to(dtype)
    hole = covered[place].movedim(-1, 1)
    degree = _neighbours(torch.ones(1, 1, *images.shape[2:], dtype=dtype, device=images.device))
    weights = degree[0, 0][rows[:, :, None], columns[:, None, :]][:, None]
    at_once = max(1, _AT_ONCE // near[0].numel())
    parts = zip(near.split(at_once), hole.split(at_once), weights.split(at_once), strict=True)
    solved = torch.cat([_solved(*part) for part in parts])
    found = images.clone()
    found[place] = torch.where(hole, solved, near).movedim(1, -1).to(images.dtype)
    return found


def _boxes(covered: Tensor) -> tuple[Tensor, Tensor, int, int]:
    """Boxes of one size around the covered pixels and one more on each side: top and left (n,), the size."""
    edges: list[tuple[Tensor, int]] = []
    for axis in (3, 2):
        line, length = covered.any(dim=axis)[:, 0].byte(), covered.shape[5 - axis]
        first = line.argmax(dim=1) - 1
        last = length - line.flip(1).argmax(dim=1)
        extent = min(length, int((last - first).max()) + 1)
        edges.append((first.clamp(0, length - extent), extent))
    (top, height), (left, width) = edges
    return top, left, height, width


def _solved(near: Tensor, hole: Tensor, degree: Tensor) -> Tensor:
    """The covered pixels' values by conjugate gradients, each channel by itself, (n, C, h, w)."""

    def applied(values: Tensor) -> Tensor:
        return (degree * values - _neighbours(values)) * hole

    right = _neighbours(near * ~hole) * hole
    limit = _dot(right, right) * torch.finfo(near.dtype).eps ** 1.2
    values = _spread(near, ~hole) * hole
    rest = right - applied(values)
    direction, square = rest.clone(), _dot(rest, rest)
    for _ in range(10 * (near.shape[2] + near.shape[3])):
        unsolved = square > limit
        if not bool(unsolved.any()):
            break
        product = applied(direction)
        # What is solved stays as it is, so that no image changes another one's last bits.
        step = torch.where(unsolved, square / _dot(direction, product), 0.0)
        values.addcmul_(step, direction)
        rest.addcmul_(step, product, value=-1)
        before, square = square, _dot(rest, rest)
        direction = rest + torch.where(unsolved, square / before, 0.0) * direction
    return values


def _neighbours(values: Tensor) -> Tensor:
    """The sum of each pixel's neighbours by their weights, zeros outside, (n, C, h, w)."""
    padded = F.pad(values, (1, 1, 1, 1))
    rows = torch.add(padded[:, :, :-2], padded[:, :, 1:-1], alpha=2).add_(padded[:, :, 2:])
    both = torch.add(rows[..., :-2], rows[..., 1:-1], alpha=2).add_(rows[..., 2:])
    return both.sub_(values, alpha=4).div_(12)


def _spread(values: Tensor, known: Tensor) -> Tensor:
    """A first guess: means of what is known over 2 x 2, 4 x 4 ... pixels, the finest that has any."""
    size = values.shape[2:]
    if bool(known.all()) or max(size) == 1:
        return torch.where(known, values, 0.0)
    sums = F.avg_pool2d(values * known, 2, ceil_mode=True, divisor_override=1)
    counts = F.avg_pool2d(known.to(values), 2, ceil_mode=True, divisor_override=1)
    coarse = _spread(sums / counts.clamp(min=1), counts > 0)
    wide = F.interpolate(coarse, scale_factor=2, mode="nearest")[..., : size[0], : size[1]]
    return torch.where(known, values, wide)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(2, 3), keepdim=True)
