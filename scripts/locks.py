"""Lock files: every package of the project at one version, every file of it by its SHA-256.

    make locks                                       # after a change of pins: pyproject.toml, constraints.txt
    python scripts/locks.py --torch-build FILE.whl   # allow one more build of torch (a CPU build of another index)
    python scripts/locks.py --check                  # do the locks fit pyproject.toml and constraints.txt? asks nobody

    locks/base.txt, locks/<extra>.txt    what `pip install --require-hashes -r` installs: the project's dependencies, with
                                         those of the extra; for Python 3.11 and 3.12 and any platform, by markers
    locks/cuda.txt                       what PyPI's own build of torch for Linux wants besides, and a CPU build does not
    locks/torch-builds.txt               builds of torch from elsewhere, whose hashes are allowed as well

`uv pip compile` resolves, because it reads the metadata of packages without fetching them and writes one answer for all
platforms; what it writes is installed by pip. No address of an index stands in a lock: where packages come from is the
user's setting, what they are is the hash's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
BUILDS = LOCKS / "torch-builds.txt"
CUDA = re.compile(r"nvidia-|cuda-|triton\b")
"""Packages that only PyPI's build of torch for Linux asks for."""
_ENTRY = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; exit code 1 where something does not fit")
    parser.add_argument("--torch-build", type=Path, metavar="WHEEL", help="allow this build of torch by its hash")
    asked = parser.parse_args()
    if asked.torch_build:
        add_build(asked.torch_build)
    if not asked.check:
        for name in extras():
            compile_lock(name)
            print(f"locks/{name}.txt", flush=True)
    faults = unfit()
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def extras() -> list[str]:
    return ["base", *sorted(project().get("optional-dependencies", {}))]


def wanted(name: str) -> list[Requirement]:
    """What pyproject.toml asks for: the dependencies, and those of an extra."""
    told = project()
    more = [] if name == "base" else told["optional-dependencies"][name]
    return [Requirement(text) for text in (*told["dependencies"], *more)]


def entries(text: str) -> dict[str, tuple[str, set[str], str]]:
    """A lock's packages: canonical name → (version, hashes, the entry as written)."""
    found = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        if match := _ENTRY.match(block):
            found[canonicalize_name(match[1])] = (match[2], set(_HASH.findall(block)), block.rstrip("\n"))
    return found


def compile_lock(name: str) -> None:
    chosen = [] if name == "base" else ["--extra", name]
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *chosen, "-c", "constraints.txt"),
        *("--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"),
        *("--no-config", "--native-tls", "--quiet"),
    ]
    # The user's own indexes would leave their builds' hashes in a file for everybody; PyPI's are what all can get.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: the packages of `{name}` cannot be resolved\n{done.stderr.strip()}")
    held = entries(done.stdout)
    plain = [block for package, (_, _, block) in held.items() if not CUDA.match(package)]
    cuda = [block for package, (_, _, block) in held.items() if CUDA.match(package)]
    write(name, [with_builds(block) for block in plain])
    if name == "base":
        write("cuda", cuda)


def with_builds(block: str) -> str:
    match = _ENTRY.match(block)
    if match is None or match[1] != "torch":
        return block
    for line in BUILDS.read_text(encoding="utf-8").splitlines() if BUILDS.is_file() else []:
        if line and not line.startswith("#"):
            file, sha = line.split()
            if parse_wheel_filename(file)[1].public == match[2] and sha not in block:
                block += f" \\\n    --hash=sha256:{sha}"
    return block


def write(name: str, blocks: list[str]) -> None:
    LOCKS.mkdir(exist_ok=True)
    head = f"# Made by `make locks`. Installed by: pip install --require-hashes --no-deps -r locks/{name}.txt\n"
    (LOCKS / f"{name}.txt").write_text(head + "\n".join(blocks) + "\n", encoding="utf-8")


def add_build(wheel: Path) -> None:
    name, version, _, _ = parse_wheel_filename(wheel.name)
    if name != "torch":
        raise SystemExit(f"error: {wheel.name} is no build of torch")
    with wheel.open("rb") as handle:
        line = f"{wheel.name} {hashlib.file_digest(handle, 'sha256').hexdigest()}"
    held = BUILDS.read_text(encoding="utf-8").splitlines() if BUILDS.is_file() else [
        "# Builds of torch that are not PyPI's own (a CPU build, another CUDA), allowed by their SHA-256 besides those of PyPI."
    ]  # fmt: skip
    LOCKS.mkdir(exist_ok=True)
    BUILDS.write_text("\n".join([*held, *([] if line in held else [line])]) + "\n", encoding="utf-8")
    print(f"allowed: {version}, {line.split()[1][:16]}…")


def unfit() -> list[str]:
    """What does not fit: a requirement without its entry, a version other than the pinned one, an entry without a hash."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := _ENTRY.match(line):
            pins[canonicalize_name(match[1])] = match[2]
    faults = []
    for name in (*extras(), "cuda"):
        path = LOCKS / f"{name}.txt"
        if not path.is_file():
            faults.append(f"locks/{name}.txt is missing; make locks")
            continue
        text = path.read_text(encoding="utf-8")
        held = entries(text)
        if "://" in text or "--index" in text or "--find-links" in text:
            faults.append(f"locks/{name}.txt names a place that packages come from")
        for package, (version, hashes, _) in held.items():
            if not hashes:
                faults.append(f"locks/{name}.txt: {package} has no hash")
            if pins.get(package, version) != version:
                faults.append(
                    f"locks/{name}.txt: {package} {version}, and constraints.txt has {pins[package]}; make locks"
                )
        for requirement in wanted(name) if name != "cuda" else []:
            found = held.get(canonicalize_name(requirement.name))
            if found is None:
                faults.append(f"locks/{name}.txt lacks {requirement.name}; make locks")
            elif not requirement.specifier.contains(Version(found[0]), prereleases=True):
                faults.append(
                    f"locks/{name}.txt: {requirement.name} {found[0]} is not {requirement.specifier}; make locks"
                )
    return faults


if __name__ == "__main__":
    sys.exit(main())
