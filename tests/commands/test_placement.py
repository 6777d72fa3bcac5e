"""Where a command computes: options that don't go together, and a cluster that isn't there."""

import socket
import sys

import pytest
import torch

from clarp.commands.placement import Placement
from evaluation.toys import toy_model, toy_photos
from evaluation.watched import evaluated


@pytest.fixture
def arguments(tmp_path):
    model = toy_model(tmp_path)
    return ["evaluate", toy_photos(tmp_path / "photos", 4), "--model", model, "--out", tmp_path / "run"]


@pytest.mark.parametrize("given", [["--address", "auto"], ["--gpus-per-worker", "1"]])
def test_options_of_a_cluster_without_one(arguments, tmp_path, capsys, given):
    assert evaluated(*arguments, *given) == 2
    assert f"{given[0]} are for a cluster: add --engine ray" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "engine", "said"),
    [
        ("explain", "local", "--engine is 'local', expected one of torch, onnxruntime, ray."),
        ("serve", "local", "--engine is 'local', expected one of torch, onnxruntime, ray."),
        ("evaluate", "tensorflow", "--engine is 'tensorflow', expected one of torch, onnxruntime, ray."),
        (
            "serve",
            "ray",
            "--engine is 'ray', and `clarp serve` computes in its own process: expected torch or",
        ),
    ],
)
def test_engines_that_a_command_does_not_have(tmp_path, capsys, command, engine, said):
    more = {"explain": ["a.png"], "evaluate": [tmp_path, "--out", tmp_path / "run"]}.get(command, [])
    assert evaluated(command, *more, "--engine", engine) == 2
    assert capsys.readouterr().err.startswith(f"clarp: {said}")


def test_of_the_cluster_without_one_in_explain(tmp_path, capsys):
    assert evaluated("explain", "a.png", "--out", tmp_path / "out", "--address", "auto") == 2
    assert "--address are for a cluster: add --engine ray" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_engine_of_the_cpu_takes_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Placement("torch", 4).workers_for(None).devices == ("cuda:0", "cuda:1")
    assert Placement("onnxruntime", 4).workers_for(None).devices == ("cpu",)


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="--engine is 'dask', expected one of torch, onnxruntime, ray"):
        Placement("dask")


@pytest.mark.parametrize(
    ("device", "gpus", "said"),
    [("cuda:1", None, "Ray chooses the GPUs"), ("cpu", 1.0, "leave out one of them")],
)
def test_devices_that_a_cluster_does_not_take(device, gpus, said):
    with pytest.raises(ValueError, match=said):
        Placement("ray", gpus=gpus).workers_for(device)


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [(None, None, None), ("cpu", None, 0.0), ("cuda", None, 1.0), ("cuda", 0.5, 0.5), (None, 0.25, 0.25)],
)
def test_gpus_of_a_cluster(device, gpus, expected, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = Placement("ray", 7, "auto", gpus).workers_for(device)
    assert (found.address, found.count, found.threads) == ("auto", 7, 3)
    assert found.gpus == expected


def test_without_ray(arguments, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert evaluated(*arguments, "--engine", "ray") == 2
    said = '--engine ray needs ray, which is not installed: pip install "clarp[ray]"'
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_answers(arguments, capsys, scheme):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
    assert evaluated(*arguments, "--engine", "ray", "--address", address) == 2
    assert f"no Ray cluster answers at '{address}': " in capsys.readouterr().err
