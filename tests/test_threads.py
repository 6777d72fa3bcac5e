"""Threads and processes: first explanations beside each other and beside the model's own inference; what travels by pickle."""

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clarp
from oracle.calls import images
from oracle.travel import Net, explain


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """All jobs in threads of their own that begin together; what they gave, or what they raised."""
    results: list[Any] = [None] * len(jobs)
    gate = threading.Barrier(len(jobs))

    def work(index: int) -> None:
        gate.wait()
        try:
            results[index] = jobs[index]()
        except Exception as error:  # noqa: BLE001  whatever it is, it is a failure
            results[index] = error

    crew = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return results


def test_first_explanations_and_inference_at_once() -> None:
    sizes = (8, 10)
    for round_ in range(2):
        models = [Net(seed) for seed in range(2)]
        inputs = {size: images(2, 3, size, size, seed=round_) for size in sizes}
        jobs: list[Callable[[], Any]] = []
        expected: list[Tensor] = []
        for model in models:
            explainer, twin = clarp.Explainer(model, "ssglrp", bounds=(-4.0, 4.0)), copy.deepcopy(model)
            for x in inputs.values():
                jobs += [lambda e=explainer, x=x: e(x, target=1).relevance] * 2
                expected += [clarp.Explainer(twin, "ssglrp", bounds=(-4.0, 4.0))(x, target=1).relevance] * 2
                with torch.no_grad():
                    jobs.append(lambda m=model, x=x: m(x).detach())
                    expected.append(twin(x))
        for found, wanted in zip(at_once(*jobs), expected, strict=True):
            assert type(found) is Tensor, found
            assert torch.allclose(found, wanted, rtol=1e-10)
        for model in models:
            assert {type(parameter) for parameter in model.parameters()} == {nn.Parameter}
            assert type(model.last) is Tensor


@pytest.mark.slow
def test_two_hundred_rounds_of_thirty_two_threads() -> None:
    for round_ in range(200):
        model = Net(round_)
        before = {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()}
        x = images(2, 3, 8, 8, seed=round_)
        explainers = [clarp.Explainer(model, "lrp") for _ in range(4)]
        expected = clarp.Explainer(copy.deepcopy(model), "lrp")(x, target=1).relevance
        jobs: list[Callable[[], Any]] = [
            *(lambda e=e, x=x: e(x, target=1).relevance for e in explainers for _ in range(6)),
            *(lambda m=model, x=x: m(x).detach() for _ in range(8)),
        ]
        found = at_once(*jobs)
        assert all(type(one) is Tensor for one in found), found
        assert all(torch.allclose(one, expected, rtol=1e-10) for one in found[:24])
        for name, parameter in model.named_parameters():
            assert id(parameter) == before[name][0]
            assert torch.equal(parameter, before[name][1])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)
def test_what_travels(copied: Callable[[Any], Any]) -> None:
    x = images(2, 3, 8, 8)
    explainer = clarp.Explainer(Net(), "ssglrp", bounds=(-4.0, 4.0), compile="eager")
    explainer = clarp.Explainer(explainer.network, "ssglrp", bounds=(-4.0, 4.0))
    explanation = explainer(x, target=[1, 2])
    again = copied(explainer)
    assert torch.equal(again(x, target=[1, 2]).relevance, explanation.relevance)
    assert again.network.model is not explainer.network.model
    with torch.no_grad():
        again.network.model.fc.weight.neg_()
    assert not torch.equal(again(x, target=[1, 2]).relevance, explanation.relevance)
    network = copied(explainer.network)
    assert torch.equal(
        clarp.Explainer(network, "ssglrp", bounds=(-4.0, 4.0))(x, [1, 2]).relevance, explanation.relevance
    )
    other = copied(explanation)
    assert torch.equal(other.relevance, explanation.relevance)
    assert str(other.ledger) == str(explanation.ledger)
    assert other.describe() == explanation.describe()


def test_an_explainer_that_compiles_travels() -> None:
    explainer = pickle.loads(pickle.dumps(clarp.Explainer(Net(), "lrp", compile="eager")))
    plain = clarp.Explainer(Net(), "lrp")
    x = images(1, 3, 8, 8)
    assert torch.allclose(explainer(x, target=1).relevance, plain(x, target=1).relevance, rtol=1e-9)


def test_spawned_workers() -> None:
    x, explainer = images(1, 3, 8, 8), clarp.Explainer(Net(), "lrp")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(explain, explainer, x).result(timeout=120)
    assert torch.allclose(torch.from_numpy(found), explainer(x, target=1).relevance, rtol=1e-12)


def test_circumstances_of_a_call() -> None:
    """Inference mode, autocast, another default type or device: the same map as without."""
    x, model = images(1, 3, 8, 8), Net()
    expected = clarp.Explainer(model, "lrp")(x, target=1).relevance
    with torch.inference_mode():
        assert torch.equal(clarp.Explainer(model, "lrp")(x, target=1).relevance, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(clarp.Explainer(model, "lrp")(x, target=1).relevance, expected)
    with torch.device("meta"):
        assert torch.equal(clarp.Explainer(model, "lrp")(x, target=1).relevance, expected)
    try:
        torch.set_default_dtype(torch.float16)
        assert torch.equal(clarp.Explainer(model, "lrp")(x, target=1).relevance, expected)
    finally:
        torch.set_default_dtype(torch.float32)


class Scale:
    factor = 1.0


def test_a_number_in_an_object_or_a_class_that_changes_is_seen() -> None:
    class Scaled(Net):
        gain = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.scale = Scale()
            self.nested = {"scales": [Scale()]}

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.scale.factor * self.nested["scales"][0].factor * self.gain

    model, x = Scaled(), images(1, 3, 8, 8)
    explainer = clarp.Explainer(model, "lrp")
    first = explainer(x).logits
    model.scale.factor = 3.0
    assert torch.allclose(explainer(x).logits, 3 * first)
    model.nested["scales"][0].factor = 2.0
    assert torch.allclose(explainer(x).logits, 6 * first)
    Scaled.gain = 0.5
    assert torch.allclose(explainer(x).logits, 3 * first)
    graph = explainer.network.graph((3, 8, 8), torch.float64)
    assert explainer.network.graph((3, 8, 8), torch.float64) is graph
