"""llama.cpp's log: only its errors reach the terminal."""

from __future__ import annotations

import sys
from typing import Any

_ERROR = 4  # GGML_LOG_LEVEL_ERROR in ggml.h; 5 continues the line before it
_CONTINUED = 5
_state: dict[str, Any] = {"callback": None, "level": 0}


def silence() -> None:
    """Send llama.cpp's errors to standard error and drop everything below; calling it again changes nothing."""
    if _state["callback"] is not None:
        return
    import ctypes

    import llama_cpp

    @llama_cpp.llama_log_callback
    def write(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
        # A continued line has the level of the line that it continues.
        if level != _CONTINUED:
            _state["level"] = level
        if _state["level"] == _ERROR:
            sys.stderr.write(text.decode("utf-8", "replace"))

    _state["callback"] = write  # ctypes keeps no reference of its own
    llama_cpp.llama_log_set(write, ctypes.c_void_p(0))
