"""Settings of the process that make training repeatable, and faster without changing a bit of its result."""

from __future__ import annotations

import ctypes
import os
from importlib.metadata import version
from typing import Any

from foundry_pipeline.errors import FoundryError

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

    torch.set_num_threads(threads)
    # warn_only: an operation without a deterministic kernel exists on some GPUs and must not stop a run there
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # every tensor here is written before it is read
    reseed(seed)


def reseed(seed: int) -> None:
    """Set every generator to the beginning of its sequence."""
    from transformers import set_seed

    set_seed(seed)


def library_versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    return {name: version(name) for name in LIBRARIES}


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def training_device(wanted: str = "auto", local_rank: int = 0) -> str:
    """`cpu`, or the GPU that falls to this process (`cuda:0` for the first on its node).

    Raises FoundryError where a GPU is asked for and there is none for it.
    """
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local_rank >= count:
        raise FoundryError(
            f"a GPU is needed for process {local_rank} on this machine, and torch {torch.__version__} sees {count}",
            where="`compute` of the profile",
            mend="run where a GPU is, with torch built for it (`foundry doctor`), or declare `device: cpu` or fewer `processes`",
        )
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"


def device_name(device: str = "auto") -> str:
    """The accelerator's name, or `cpu`; `auto` is the first one there is."""
    import torch

    cuda: Any = torch.cuda
    return str(cuda.get_device_name()) if device != "cpu" and cuda.is_available() else "cpu"


def peak_gpu_bytes(device: str) -> int:
    """Most that this process has held on its GPU at once, by torch's allocator; 0 on the processor."""
    import torch

    return 0 if device == "cpu" else int(torch.cuda.max_memory_allocated(device))
