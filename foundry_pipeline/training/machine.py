"""Settings of the process that make training repeatable, and faster without changing a bit of its result."""

from __future__ import annotations

import ctypes
import os
from importlib.metadata import version
from typing import Any

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed instead of handing it back; True when the C library could be told.

    A preference step frees and takes logits of some 70 MB many times. By default each goes through mmap(2), and the
    kernel clears its pages anew; kept memory and large pages took a third off the step. To be called before torch.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch: large pages for blocks above 2 MB
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 256 * 2**20))
    taken = [mallopt(name, value) == 1 for name, value in settings]  # a list: each is set, whatever the others say
    return all(taken)


def make_repeatable(seed: int, threads: int) -> None:
    """Seed every generator, fix the thread count (sums depend on it), and choose deterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch
    from transformers import set_seed

    torch.set_num_threads(threads)
    # warn_only: an operation without a deterministic kernel exists on some GPUs and must not stop a run there
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # every tensor here is written before it is read
    set_seed(seed)


def library_versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    return {name: version(name) for name in LIBRARIES}


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name() -> str:
    """The accelerator's name, or `cpu`."""
    import torch

    cuda: Any = torch.cuda
    return str(cuda.get_device_name()) if cuda.is_available() else "cpu"
