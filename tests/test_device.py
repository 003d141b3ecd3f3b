"""What is set up before MLX is loaded, by the device that it will run on."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from generators import device


def test_on_a_cuda_machine_mlx_keeps_no_graphs_and_no_blas_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", "")  # so that what is set here is taken back
    monkeypatch.delenv("MLX_USE_CUDA_GRAPHS")
    monkeypatch.setattr(device, "_has_gpu_backend", lambda: True)
    monkeypatch.setattr(device, "_load_tuned_blas", lambda: done.append("blas"))
    device.prepare()
    assert os.environ["MLX_USE_CUDA_GRAPHS"] == "0" and done == []


def test_who_wants_cuda_graphs_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", "1")
    monkeypatch.setattr(device, "_has_gpu_backend", lambda: True)
    device.prepare()
    assert os.environ["MLX_USE_CUDA_GRAPHS"] == "1"


def test_without_a_gpu_the_environment_stays_and_a_blas_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", "")  # so that what is set here is taken back
    monkeypatch.delenv("MLX_USE_CUDA_GRAPHS")
    monkeypatch.setattr(device, "_has_gpu_backend", lambda: False)
    monkeypatch.setattr(device, "_load_tuned_blas", lambda: done.append("blas"))
    device.prepare()
    assert "MLX_USE_CUDA_GRAPHS" not in os.environ and done == ["blas"]


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="other machines have their own")
def test_matrices_are_multiplied_by_a_tuned_blas() -> None:
    device.load_mlx()
    found = device.current()
    assert found.kind != "cpu" or found.blas.startswith("OpenBLAS")
