"""One folder of an object store (S3, or any file system that fsspec knows), with what happens there counted.

    bucket = Bucket("s3://models/foundry")
    bucket.upload(Path("a.txt"), "artifacts/…/a.txt")
    bucket.entries("artifacts/")            → {"…/a.txt": Entry(size=3, tag="900150983cd24fb0d6963f7d28e17f72")}
    bucket.create("index/….json", b"{}")    → True; False where somebody else was first

Credentials, region and endpoint come from the environment, as every tool of the store's provider reads them
(`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_PROFILE`); `FOUNDRY_STORE_OPTIONS`,
a JSON object, is passed to the fsspec file system as it is. Neither is ever shown.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.bucket_errors import told_as
from foundry_pipeline.lineage.objects import Entry, Traffic, entry, is_file, shown_url

_BLOCK = 8 << 20
# Seconds. A store that says nothing for so long is away; the requests themselves are repeated by the client.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60}, "max_concurrency": 4}
}
# Stores whose objects appear whole or not at all. Elsewhere a file is written beside its place and renamed.
_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"}
_EXTRAS = {"s3": "s3", "s3a": "s3"}


# Told how many bytes more have gone to or fro.
Progress = Callable[[int], None]


class Bucket:
    """Objects below one URL. Raises StoreAway when the store is away, refuses the key, or is not there."""

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        self.url, self.shown = url, shown_url(url)
        self.protocol = urlsplit(url).scheme
        self._options = options or {}
        self._fs: Any = None
        self._prefix, self._sent = "", False
        self._lock = threading.RLock()
        self._traffic = Traffic()

    # -- the file system -----------------------------------------------------------------------------------------

    @property
    def fs(self) -> Any:
        with self._lock:
            if self._fs is None:
                self._fs, self._prefix = self._open()
        return self._fs

    def _open(self) -> tuple[Any, str]:
        import fsspec

        options = {**_DEFAULTS.get(self.protocol, {}), **self._options}
        try:
            # Listings are asked for anew: others write here.
            fs, path = fsspec.core.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True, **options)
        except ImportError as error:
            extra = _EXTRAS.get(self.protocol)
            raise FoundryError(
                f"a store at {self.protocol}:// needs a package that is not installed ({error})",
                where=self.shown,
                mend=f"pip install -e '.[{extra}]'" if extra else "pip install the package that it names",
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise FoundryError(
                f"FOUNDRY_STORE cannot be used: {type(error).__name__}",
                where=self.shown,
                mend="give a folder or a URL such as s3://bucket/prefix; FOUNDRY_STORE_OPTIONS is a JSON object",
            ) from error
        if hasattr(fs, "set_session"):  # s3fs: count what is really sent, repeated requests and parts among them
            try:
                fs.connect()
            except Exception as error:
                raise told_as(error, self.shown, "") from error
            fs.s3.meta.events.register("before-send.s3", lambda **_: self._count(requests=1))
            self._sent = True
        return fs, str(path).rstrip("/")

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                setattr(self._traffic, name, getattr(self._traffic, name) + value)

    def traffic(self) -> Traffic:
        """What went to and fro since this object was made."""
        with self._lock:
            return Traffic(**self._traffic.as_dict())

    def found(self, files: int) -> None:
        """Count files that did not have to be sent, because they are there."""
        self._count(found_files=files)

    def place(self, key: str) -> str:
        """Where an object is, for people."""
        return f"{self.shown}/{key}" if key else self.shown

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{key}"

    @contextmanager
    def _told(self, key: str = "") -> Iterator[None]:
        _ = self.fs
        if not self._sent:
            self._count(requests=1)
        try:
            yield
        except FoundryError:
            raise
        except Exception as error:
            raise told_as(error, self.shown, key) from error

    # -- reading -------------------------------------------------------------------------------------------------

    def entries(self, key: str) -> dict[str, Entry]:
        """Every object below a folder (`key` ends with a slash), by its path relative to it."""
        fs, base = self.fs, self._path(key)
        with self._told(key):
            try:
                found = fs.find(base, detail=True)
            except FileNotFoundError as error:
                if getattr(error.__cause__, "response", None) is not None:  # the bucket itself
                    raise
                return {}
        start = base.rstrip("/").lstrip("/") + "/"
        return {
            path.lstrip("/").removeprefix(start): entry(info)
            for path, info in found.items()
            if info.get("type") == "file" and path.lstrip("/").startswith(start)
        }

    def read(self, key: str) -> bytes | None:
        """The content of a small object, or None where there is none."""
        with self._told(key):
            try:
                data: bytes = self.fs.cat_file(self._path(key))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(getattr(error.__cause__, "response", "")):
                    raise
                return None
        self._count(downloaded_bytes=len(data))
        return data

    def entry_of(self, key: str) -> Entry | None:
        """Size and mark of one object, or None where there is none."""
        with self._told(key):
            try:
                return entry(self.fs.info(self._path(key)))
            except FileNotFoundError:
                return None

    def download(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Fetch an object into a local file. Raises FileNotFoundError where it is not there."""
        with self._told(key):
            self.fs.get_file(self._path(key), str(path), callback=_callback(progress))
        self._count(downloaded_files=1, downloaded_bytes=path.stat().st_size)

    def sha256(self, key: str) -> str | None:
        """SHA-256 of what the store really holds, read in blocks; None where there is no such object."""
        digest, size, at = hashlib.sha256(), self.entry_of(key), 0
        if size is None:
            return None
        while at < size.size:
            with self._told(key):
                block: bytes = self.fs.cat_file(self._path(key), start=at, end=min(at + _BLOCK, size.size))
            if not block:
                return ""
            digest.update(block)
            at += len(block)
            self._count(downloaded_bytes=len(block))
        return digest.hexdigest()

    def holds(self, found: Entry, path: Path) -> bool | None:
        """Whether an object is this local file, by size and mark alone; None where these cannot tell."""
        part_size = None
        if self.protocol in _EXTRAS:
            from s3fs.core import calculate_chunksize

            part_size = calculate_chunksize(found.size)
        return is_file(found, path, part_size)

    # -- writing -------------------------------------------------------------------------------------------------

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        """Send a local file, over whatever was there."""
        with self._told(key):
            if self.protocol in _WHOLE:
                self.fs.put_file(str(path), self._path(key), callback=_callback(progress))
            else:
                target, beside = self._beside(key)
                self.fs.put_file(str(path), beside, callback=_callback(progress))
                self.fs.mv(beside, target)
        self._count(uploaded_files=1, uploaded_bytes=path.stat().st_size)

    def write(self, key: str, data: bytes) -> None:
        """Write a small object, over whatever was there."""
        with self._told(key):
            self._pipe(key, data)
        self._count(uploaded_bytes=len(data))

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object unless there is one; whether it was written.

        Atomic where the store can do it (S3 and Google by a conditional request). Elsewhere it is looked up first, and
        who reads it afterwards sees which writer was the last.
        """
        with self._told(key):
            if self.protocol in _WHOLE:
                try:
                    self.fs.pipe_file(self._path(key), data, mode="create")
                except FileExistsError:
                    return False
                except NotImplementedError:
                    if self.fs.exists(self._path(key)):
                        return False
                    self.fs.pipe_file(self._path(key), data)
            else:
                if self.fs.exists(self._path(key)):
                    return False
                self._pipe(key, data)
        self._count(uploaded_bytes=len(data))
        return True

    def _pipe(self, key: str, data: bytes) -> None:
        if self.protocol in _WHOLE:
            self.fs.pipe_file(self._path(key), data)
            return
        target, beside = self._beside(key)
        self.fs.pipe_file(beside, data)
        self.fs.mv(beside, target)

    def _beside(self, key: str) -> tuple[str, str]:
        import uuid

        target = self._path(key)
        folder, _, name = target.rpartition("/")
        self.fs.makedirs(folder, exist_ok=True)
        return target, f"{folder}/.{name}.{uuid.uuid4().hex}"

    def move(self, key: str, target: str) -> None:
        """Set an object aside under another key; one that is gone already is no failure."""
        with self._told(key):
            try:
                if self.protocol not in _WHOLE:
                    self.fs.makedirs(self._path(target).rpartition("/")[0], exist_ok=True)
                self.fs.copy(self._path(key), self._path(target))
                self.fs.rm_file(self._path(key))
            except FileNotFoundError:
                return

    def remove(self, key: str) -> None:
        with self._told(key):
            try:
                self.fs.rm_file(self._path(key))
            except FileNotFoundError:
                return


def _callback(progress: Progress | None) -> Any:
    from fsspec.callbacks import Callback, NoOpCallback

    if progress is None:
        return NoOpCallback()
    told: Progress = progress

    class Told(Callback):
        def relative_update(self, inc: int = 1) -> None:
            told(inc)

    return Told()


def parse_options(text: str | None) -> dict[str, Any]:
    """FOUNDRY_STORE_OPTIONS as a mapping. Raises FoundryError, without quoting it, where it is none."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FoundryError(
            "FOUNDRY_STORE_OPTIONS is not a JSON object",
            mend="""FOUNDRY_STORE_OPTIONS='{"endpoint_url": "https://…"}'""",
        )
    return found
