"""Unit tests reach no network: a test that needs a socket belongs to tests/system."""

from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    # Event loops wake themselves through a Unix socket pair, which stays allowed.
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
