"""An S3 server on loopback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SECRET = "geheim"


@contextmanager
def s3_server() -> Iterator[tuple[dict[str, str], Any]]:
    """With the bucket `maps`: the environment of its users, by the names of GDAL's manual, and a client."""
    moto_server, boto3 = (pytest.importorskip(name) for name in ("moto.server", "boto3"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    account = {"AWS_ACCESS_KEY_ID": "anna", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="anna",
        aws_secret_access_key=SECRET,
    )
    client.create_bucket(Bucket="maps")
    yield account | {"AWS_S3_ENDPOINT": f"{host}:{port}", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}, client
    server.stop()
