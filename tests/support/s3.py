"""An S3 server on loopback: moto's, behind a counter of requests that can make some of them go wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Asked:
    """One request: its method, path and range."""

    method: str
    path: str
    range: str


@dataclass
class S3Server:
    """Serves buckets until closed. `fault` gives the status with which a request fails, or None."""

    asked: list[Asked] = field(default_factory=list)
    fault: Callable[[Asked], int | None] = lambda _: None

    def __enter__(self) -> S3Server:
        backend = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._counted(backend), threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.client: Any = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def upload(self, bucket: str, folder: Path, prefix: str = "") -> None:
        """Put a folder's files into a bucket."""
        self.client.create_bucket(Bucket=bucket)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = prefix + path.relative_to(folder).as_posix()
                self.client.put_object(Bucket=bucket, Key=name, Body=path.read_bytes())

    def _counted(self, application: Any) -> Callable[..., Iterable[bytes]]:
        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            asked = Asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE", ""))
            self.asked.append(asked)
            status = self.fault(asked)
            if status is not None:
                start(f"{status} Fault", [("Content-Length", "0")])
                return [b""]
            return application(environ, start)  # type: ignore[no-any-return]

        return answer
