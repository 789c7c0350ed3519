"""Serve a language model with llama.cpp: `python -m doorward.demo.language_model MODEL PORT NAME`.

With DEMO_LLM_KEY set it asks for that key; without, it answers anyone, as such servers do by default.
"""

from __future__ import annotations

import os
import signal
import sys

import xllamacpp  # type: ignore[import-untyped]  # it ships no types

_CONTEXT = 4096


def main(model: str, port: int, name: str) -> None:
    """Serve until ended."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_ctx = _CONTEXT
    parameters.n_parallel = 2
    parameters.cpuparams.n_threads = 2
    parameters.model_alias = {name}
    if key := os.environ.get("DEMO_LLM_KEY"):
        parameters.api_keys = [key]
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
