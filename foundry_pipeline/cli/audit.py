"""`foundry audit` and `foundry sbom`: what is installed, and whether an advisory is known of it.

    foundry audit                     exit code 0 nothing known, 1 something is, 2 it could not be asked: that is no pass
    foundry audit --osv               asks osv.dev instead of PyPI's advisories (FOUNDRY_OSV_URL: a mirror of it)
    foundry sbom --out sbom.json      every installed package with its version and licence, as CycloneDX JSON

The packages of this very environment are looked at, not those of a lock, because they are what runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError

OWN = "foundry-pipeline"
_SECONDS = 15 * 60.0
_INSTALL = "pip install -c constraints.txt -e '.[audit]'"


def register(app: typer.Typer) -> None:
    app.command()(audit)
    app.command()(sbom)


@dataclass
class Audit:
    """What came of asking. `known` are advisories, `unasked` packages of which the service knows nothing."""

    service: str
    packages: int
    known: list[dict[str, Any]] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    unreachable: str = ""

    @property
    def code(self) -> int:
        return 1 if self.known else 2 if self.unreachable or self.unasked else 0

    def told(self) -> str:
        """The verdict in a line."""
        if self.known:
            return f"{len(self.known)} known vulnerabilities in {len({k['package'] for k in self.known})} of {self.packages} packages"
        if self.unreachable:
            return f"NOT CHECKED: {self.service} could not be asked ({self.unreachable}). This is no pass."
        if self.unasked:
            shown = ", ".join(self.unasked[:5]) + (", …" if len(self.unasked) > 5 else "")
            return (
                f"NOT WHOLE: {self.service} knows nothing of {len(self.unasked)} packages ({shown}). This is no pass."
            )
        return f"no known vulnerability in {self.packages} packages, by {self.service}"


def installed() -> dict[str, str]:
    """Package → version as the registry has it (a build's own mark, as in 2.13.0+cpu, taken off), this project left out."""
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    found = {canonicalize_name(d.metadata["Name"]): Version(d.version).public for d in metadata.distributions()}
    return {name: version for name, version in sorted(found.items()) if name != OWN}


def ask(*, osv: bool = False) -> Audit:
    """Ask for advisories on every installed package. Raises FoundryError where the asking tool is not installed."""
    if find_spec("pip_audit") is None:
        raise FoundryError("pip-audit is not installed", where="foundry audit", mend=_INSTALL)
    packages, url = installed(), os.environ.get("FOUNDRY_OSV_URL", "").strip()
    osv = osv or bool(url)
    found = Audit("osv.dev" if osv and not url else url or "PyPI's advisories", len(packages))
    with tempfile.TemporaryDirectory() as folder:
        listed, answer = Path(folder) / "installed.txt", Path(folder) / "answer.json"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "-r",
            str(listed),
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
        ]
        command += [
            "--output",
            str(answer),
            "--progress-spinner",
            "off",
            "--desc",
            "off",
            "--cache-dir",
            f"{folder}/cache",
        ]
        command += ["--vulnerability-service", "osv"] if osv else []
        command += ["--osv-url", url] if url else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            found.unreachable = f"no answer in {_SECONDS / 60:.0f} minutes"
            return found
        try:
            rows = json.loads(answer.read_text(encoding="utf-8"))["dependencies"]
        except (OSError, ValueError, KeyError, TypeError):
            said = [line for line in done.stderr.strip().splitlines() if line.strip()]
            found.unreachable = said[-1][-300:] if said else f"pip-audit ended with exit code {done.returncode}"
            return found
    answered = {row["name"]: row for row in rows}
    for name, version in packages.items():
        row = answered.get(name)
        if row is None or "skip_reason" in row:
            found.unasked.append(f"{name} {version}")
            continue
        for advisory in row["vulns"]:
            found.known.append(
                {
                    "package": name,
                    "version": version,
                    "id": advisory["id"],
                    "aliases": list(advisory.get("aliases", [])),
                    "mended_in": list(advisory.get("fix_versions", [])),
                }
            )
    return found


def audit(
    osv: Annotated[bool, typer.Option("--osv", help="ask osv.dev instead of PyPI's advisories")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Ask for known vulnerabilities of every installed package. Exit code 0 none, 1 some, 2 not (wholly) asked."""
    found = ask(osv=osv)
    show.json_or(as_json, {**found.__dict__, "verdict": found.told(), "exit_code": found.code}, lambda _: _table(found))
    raise typer.Exit(found.code)


def _table(found: Audit) -> None:
    from rich.table import Table

    if found.known:
        table = Table()
        for head in ("package", "version", "advisory", "also known as", "mended in"):
            table.add_column(head, overflow="fold")
        for row in found.known:
            cells = (
                row["package"],
                row["version"],
                row["id"],
                ", ".join(row["aliases"]),
                ", ".join(row["mended_in"]) or "–",
            )
            table.add_row(*cells)
        show.console().print(table)
        show.line("mend: raise the pin in pyproject.toml or constraints.txt, make locks, make test (docs/security.md)")
    show.line(found.told())


def sbom(
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("sbom.json"),
) -> None:
    """Write a CycloneDX bill of materials of this environment: every package, its version, licence and parents."""
    if find_spec("cyclonedx_py") is None:
        raise FoundryError("cyclonedx-bom is not installed", where="foundry sbom", mend=_INSTALL)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "sbom.json"
        command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON"]
        command.append("--no-validate")  # half a minute, to check the tool's own writing
        project = Path("pyproject.toml")
        command += ["--pyproject", str(project)] if project.is_file() else []
        done = subprocess.run([*command, "-o", str(made), sys.executable], capture_output=True, text=True, check=False)
        if done.returncode or not made.is_file():
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise FoundryError(f"no bill of materials could be made ({said})", where="cyclonedx-py", mend="make setup")
        text = made.read_text(encoding="utf-8")
    from foundry_pipeline.reports.pages import write_page

    write_page(out, _impersonal(text), what="the bill of materials", again=f"foundry sbom --out {out}")
    show.line(f"{len(json.loads(text)['components'])} packages: {out}")


def _impersonal(text: str) -> str:
    """Without places of this machine: where a package was installed from is nobody's business."""
    told = json.loads(text)
    for component in [*told.get("components", []), told.get("metadata", {}).get("component", {})]:
        kept = [r for r in component.get("externalReferences", []) if not str(r.get("url", "")).startswith("file:")]
        if "externalReferences" in component:
            component["externalReferences"] = kept
    return json.dumps(told, indent=1, ensure_ascii=True) + "\n"
