"""What is set up before MLX is loaded, by the device that it will run on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable

import pytest

from generators import device


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[str]]:
    """`device.prepare` on a machine with a GPU's backend or without, and which other preparations it made."""
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", "")  # so that what is set here is taken back
    monkeypatch.delenv("MLX_USE_CUDA_GRAPHS")

    def prepare(gpu: bool) -> list[str]:
        done: list[str] = []
        monkeypatch.setattr(device, "_has_gpu_backend", lambda: gpu)
        monkeypatch.setattr(device, "_load_tuned_blas", lambda: done.append("blas"))
        device.prepare()
        return done

    return prepare


def test_on_a_cuda_machine_mlx_keeps_no_graphs_and_no_blas_is_loaded(prepared: Callable[[bool], list[str]]) -> None:
    assert prepared(True) == [] and os.environ["MLX_USE_CUDA_GRAPHS"] == "0"


def test_who_wants_cuda_graphs_has_them(prepared: Callable[[bool], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", "1")
    assert prepared(True) == [] and os.environ["MLX_USE_CUDA_GRAPHS"] == "1"


def test_without_a_gpu_the_environment_stays_and_a_blas_is_looked_for(prepared: Callable[[bool], list[str]]) -> None:
    assert prepared(False) == ["blas"] and "MLX_USE_CUDA_GRAPHS" not in os.environ


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="other machines have their own")
def test_matrices_are_multiplied_by_a_tuned_blas() -> None:
    device.load_mlx()
    found = device.current()
    assert found.kind != "cpu" or found.blas.startswith("OpenBLAS")
