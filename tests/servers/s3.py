"""A bucket of its own on an S3-compatible server that runs beside the tests.

with s3_server(tmp_path) as server:
    server.environment    FOUNDRY_STORE and the AWS variables that lead to its bucket
    server.put("artifacts/…", b"…"); server.keys("index/")
    server.configure(dead=True)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.running import Server, running

NAME, BUCKET, PREFIX = "test-access-name", "foundry-tests", "store"
SECRET = "test-secret-91b04c7de2a85f36"


class S3:
    """A running server with one bucket. What it does here is not in `requests`."""

    def __init__(self, server: Server, folder: Path) -> None:
        import boto3

        self.server, self._config = server, folder / "config.json"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=server.url,
            aws_access_key_id=NAME,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "FOUNDRY_STORE": f"s3://{BUCKET}/{PREFIX}",
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_ACCESS_KEY_ID": NAME,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def configure(self, **config: Any) -> None:
        old = json.loads(self._config.read_text())
        self._config.with_suffix(".new").write_text(json.dumps({**old, **config}))
        self._config.with_suffix(".new").replace(self._config)

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """Every request but those for the bucket itself, in the order of their answers."""
        return self.server.log()[since:]

    def count(self) -> int:
        """Requests that came in so far, those included that were refused or dropped."""
        return int((self._config.parent / "seen").read_text() or 0)

    def keys(self, below: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{PREFIX}/{below}")
        found = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return [key.removeprefix(f"{PREFIX}/") for key in found]

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")["Body"].read()
        return data

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=data)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")


@contextmanager
def s3_server(folder: Path, **config: Any) -> Iterator[S3]:
    """A server until the block ends, with its bucket made."""
    with running("s3", folder, key=NAME, **config) as server:
        yield S3(server, folder)
