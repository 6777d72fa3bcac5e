"""A run by ONNX Runtime: nearly PyTorch's table, and no run of PyTorch's goes on with it."""

import pytest

from evaluation.toys import toy_model, toy_photos
from evaluation.watched import evaluated

pytest.importorskip("onnxruntime", reason='needs pip install "clarp[onnx]"')
pytest.importorskip("onnxscript")
parquet = pytest.importorskip("pyarrow.parquet")


def test_rows_are_nearly_those_of_pytorch_and_runs_are_kept_apart(tmp_path, capsys):
    arguments = ["evaluate", toy_photos(tmp_path / "photos", 8), "--model", toy_model(tmp_path)]
    arguments += ["--methods", "lrp", "--metrics", "sparseness", "--out"]
    by_onnx = ["--engine", "onnxruntime"]
    assert evaluated(*arguments, tmp_path / "torch", "--engine", "torch") == 0
    assert evaluated(*arguments, tmp_path / "onnx", *by_onnx) == 0
    assert "note: recording" in capsys.readouterr().err
    one, other = (parquet.read_table(tmp_path / name / "rows.parquet") for name in ("torch", "onnx"))
    for name in one.column_names:
        if name.startswith("sparseness/"):
            assert other[name].to_pylist() == pytest.approx(one[name].to_pylist(), abs=1e-4)
        else:
            assert other[name].equals(one[name])
    assert not all(other[name].equals(one[name]) for name in one.column_names)
    assert evaluated(*arguments, tmp_path / "torch", *by_onnx) == 2
    assert "engine: nothing -> onnxruntime 1." in capsys.readouterr().err
    assert evaluated(*arguments, tmp_path / "onnx", "--engine", "local") == 2
    assert "-> nothing" in capsys.readouterr().err


def test_a_device_that_it_does_not_have(tmp_path, capsys):
    arguments = ["evaluate", toy_photos(tmp_path / "photos", 4), "--model", toy_model(tmp_path), "--out"]
    assert evaluated(*arguments, tmp_path / "run", "--engine", "onnxruntime", "--device", "meta") == 2
    assert "which computes on the CPU" in capsys.readouterr().err
