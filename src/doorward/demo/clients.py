"""Stock clients: only their base URL, credential and own TLS settings are set."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from doorward.demo.stage import Person, Stage

_TIMEOUT = 120.0


def s3(stage: Stage, person: Person, *, shows_device: bool = True, purpose: str | None = None) -> Any:
    """Return a boto3 S3 client; with `purpose` it sends the header Doorward-Purpose."""
    import boto3  # type: ignore[import-untyped]  # it ships no types
    from botocore.config import Config  # type: ignore[import-untyped]  # as above

    device = person.device if shows_device else None
    client = boto3.client(
        "s3",
        endpoint_url=f"{stage.house.url}/store",
        aws_access_key_id=person.key.access_key_id,
        aws_secret_access_key=person.key.secret_access_key,
        region_name="us-east-1",
        verify=str(stage.house.ca),
        config=Config(
            client_cert=(str(device.certificate), str(device.key)) if device else None,
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
        ),
    )
    if purpose is not None:
        client.meta.events.register(
            "before-sign.s3", lambda request, **_: request.headers.add_header("Doorward-Purpose", purpose)
        )
    return client


def llm(stage: Stage, person: Person) -> Any:
    """Return an OpenAI client; the caller closes it."""
    import openai

    trust = ssl.create_default_context(cafile=str(stage.house.ca))
    if person.device is not None:
        trust.load_cert_chain(person.device.certificate, person.device.key)
    return openai.OpenAI(
        base_url=f"{stage.house.url}/llm/v1",
        api_key=person.key.text,
        max_retries=0,
        timeout=_TIMEOUT,
        http_client=openai.DefaultHttpxClient(verify=trust),
    )


@contextmanager
def registry(stage: Stage, person: Person) -> Iterator[Any]:
    """Give an MLflow client that reads its credential and TLS settings from the environment, as always."""
    wanted = {
        "MLFLOW_TRACKING_TOKEN": person.key.text,
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(stage.house.ca),
        "MLFLOW_TRACKING_CLIENT_CERT_PATH": str(person.device.both) if person.device else "",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=f"{stage.house.url}/registry")
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
