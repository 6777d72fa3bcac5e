"""What lies between Fourier transforms: the same maps as its explicit matrix, or a refusal by its true reason."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import clarp
from oracle.calls import images
from oracle.spellings import Body, check_gradient, check_maps, network

SIZE = (4, 6, 6)


def complex_(*shape: int, seed: int) -> Tensor:
    return torch.complex(images(*shape, seed=seed), images(*shape, seed=seed + 1))


WEIGHT, ACROSS, MIXED = complex_(4, 6, 4, seed=1), complex_(6, 4, 4, seed=3), complex_(4, 4, 6, 4, seed=5)
LOW = (torch.fft.fftfreq(6)[:, None].square() + torch.fft.fftfreq(6).square()).sqrt().double() < 0.3


def global_filter(x: Tensor) -> Tensor:
    """GFNet (Rao et al. 2021), channels in front."""
    return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * WEIGHT, s=(6, 6), norm="ortho")


def global_filter_behind(x: Tensor) -> Tensor:
    """The same with channels behind, as its authors write it, and their weight as pairs of real numbers."""
    y = torch.fft.rfft2(x.permute(0, 2, 3, 1), dim=(1, 2), norm="ortho")
    y = y * torch.view_as_complex(torch.view_as_real(ACROSS).contiguous())
    return torch.fft.irfft2(y, s=(6, 6), dim=(1, 2), norm="ortho").permute(0, 3, 1, 2)


def spectral(x: Tensor) -> Tensor:
    """A spectral convolution across channels (Li et al. 2021), of the lowest frequencies."""
    y = torch.fft.rfft2(x)
    kept = torch.einsum("bixy,ioxy->boxy", y[:, :, :3, :3], MIXED[:, :, :3, :3])
    return torch.fft.irfft2(torch.nn.functional.pad(kept, (0, 1, 0, 3)), s=(6, 6))


def low_pass(x: Tensor) -> Tensor:
    return torch.fft.ifft2(
        torch.fft.ifftshift(torch.fft.fftshift(torch.fft.fft2(x)) * torch.fft.fftshift(LOW))
    ).real


def along_rows(x: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x) * WEIGHT[0, 0], n=6)


def mixing(x: Tensor) -> Tensor:
    """FNet (Lee-Thorp et al. 2022): no filter, but a matrix."""
    return torch.fft.fft(torch.fft.fft(x.flatten(2), dim=-1), dim=-2).real


def spectrum(x: Tensor) -> Tensor:
    return torch.view_as_real(torch.fft.rfft2(x))


LINEAR: dict[str, tuple[Body, ...]] = {
    "a global filter": (
        global_filter,
        lambda x: torch.fft.irfftn(torch.fft.rfftn(x, dim=(2, 3)) * WEIGHT, s=(6, 6), dim=(2, 3)),
    ),
    "channels behind": (global_filter_behind,),
    "a spectral convolution": (spectral,),
    "a low pass": (low_pass, lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * LOW[:, :4], s=(6, 6))),
    "along rows": (along_rows,),
    "FNet": (mixing, lambda x: torch.fft.fft2(x.flatten(2), dim=(-2, -1)).real),
    "a spectrum": (spectrum, lambda x: torch.stack([torch.fft.rfft2(x).real, torch.fft.rfft2(x).imag], -1)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_spellings(name: str) -> None:
    check_maps(*LINEAR[name])
    check_gradient(LINEAR[name][0])


@pytest.mark.parametrize("composite", ["zplus-box", "epsilon", "epsilon-alpha2-beta1"])
@pytest.mark.parametrize("name", LINEAR)
def test_the_map_is_that_of_the_explicit_matrix(name: str, composite: str) -> None:
    """The brute-force twin: a row of the matrix for every element, written without a transform of ours."""
    body = LINEAR[name][0]
    rows = torch.eye(4 * 6 * 6, dtype=torch.float64).view(-1, *SIZE)
    matrix = torch.stack([body(row[None]).flatten() for row in rows])

    def explicit(x: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix).view(x.shape[0], -1)

    # As convolutions where the filter is one, so that the same rule is theirs.
    rule = clarp.rules.composites.get(composite)
    alike = clarp.rules.composites.Composite("alike", rule.convolution, rule.convolution)
    x = images(2, 3, 6, 6)
    found, expected = (
        clarp.Explainer(network(how), "lrp", composite=alike)(x, target=1) for how in (body, explicit)
    )
    assert torch.allclose(
        found.relevance, expected.relevance, rtol=1e-10, atol=1e-10 * float(expected.relevance.abs().max())
    )


def test_what_is_between_the_transforms_of_a_fourier_unit() -> None:
    """Fast Fourier convolution (Chi et al. 2020): an activation of real and imaginary parts is one like any other."""

    def unit(x: Tensor) -> Tensor:
        y = torch.view_as_real(torch.fft.rfft2(x, norm="ortho")).relu()
        return torch.fft.irfft2(torch.view_as_complex(y), s=(6, 6), norm="ortho")

    check_maps(unit)
    check_gradient(unit)
    assert "ReLU" in str(clarp.Explainer(network(unit), "lrp").plan((3, 6, 6)))


def soft(x: Tensor) -> Tensor:
    y = torch.fft.rfft2(x)
    return torch.fft.irfft2(y * y, s=(6, 6))


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "magnitudes": (
        lambda x: torch.fft.fft2(x).abs(),
        "aten.abs.default .*it reads complex values, expected a linear function",
    ),
    "phases": (lambda x: torch.fft.fft2(x).angle(), "it reads complex values"),
    "a square": (soft, "is not linear in the value that they transform"),
    "a product of two": (
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(x.relu()), s=(6, 6)),
        "made of 2 values computed from the image",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_true_reason(name: str) -> None:
    body, reason = REFUSED[name]
    with pytest.raises(clarp.UnsupportedOperation, match=reason) as error:
        clarp.Explainer(network(body), "lrp")(images(2, 3, 6, 6))
    assert "1 operation" in str(error.value)
