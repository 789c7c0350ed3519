"""Play the story: start real systems, show them open, close them, guard them, and prove each beat."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from doorward.demo import beats_data, beats_log, beats_models, closing
from doorward.demo.installation import Installation
from doorward.demo.model import fetch_model, find_model
from doorward.demo.show import Show
from doorward.demo.stage import NotHeldError, Stage, require
from doorward.demo.upstreams import LanguageModel, Registry, Secrets, Store


@dataclass(frozen=True, slots=True)
class Beat:
    """What became of one beat of the story."""

    number: int
    title: str
    held: bool
    lines: tuple[str, ...]


def play(*, stay: bool, quiet: bool = False) -> list[Beat]:
    """Play the whole story; with `stay` keep everything running until Ctrl-C. Leaves nothing running."""
    began = time.monotonic()
    show = Show(quiet=quiet)
    work = Path(tempfile.mkdtemp(prefix="doorward-demo-"))
    (work / "logs").mkdir()
    signal.signal(signal.SIGTERM, _stop_asked)
    beats: list[Beat] = []
    with contextlib.ExitStack() as leaving:
        leaving.callback(shutil.rmtree, work, ignore_errors=True)
        try:
            beats = _Story(show, work, leaving).play()
            show.line()
            held, took = sum(beat.held for beat in beats), time.monotonic() - began
            show.line(f"{held} of {len(beats)} beats hold, in {took:.0f} s.")
            if stay:
                show.line("Everything keeps running; Ctrl-C stops it all.", style="bold")
                while True:
                    signal.pause()
        except KeyboardInterrupt:
            show.line()
            show.line("Stopping everything ...")
    return beats


def _stop_asked(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class _Story:
    """One performance, from open doors to the closing words."""

    def __init__(self, show: Show, work: Path, leaving: contextlib.ExitStack) -> None:
        self._show = show
        model = find_model()
        if model is None:
            with show.doing("fetching the language model (98 MB, once)"):
                model = fetch_model()
        self._keys = Secrets()
        self._llm = LanguageModel(work=work, model=model, keys=self._keys)
        self._registry = Registry(work=work)
        self._store = Store(work=work, keys=self._keys)
        self._house = Installation(work, self._keys)
        self._stage = Stage(self._house)
        self._beats: list[Beat] = []
        for part in (self._llm, self._registry, self._store, self._house):
            leaving.callback(part.stop)

    def play(self) -> list[Beat]:
        """Play it and return the beats."""
        self._prepare()
        self._open_and_close()
        self._raise_the_house()
        self._show.title("The story, through the gate, with stock clients")
        for title, scene in self._scenes():
            self._play(title, scene)
        return self._beats

    def _prepare(self) -> None:
        with self._show.doing("starting a language model, a model registry, a dataset store, and Doorward"):
            self._registry.start()
            self._llm.start(closed=False)
            self._store.start(closed=False)
            self._house.write(llm=self._llm, registry=self._registry, store=self._store)
            self._house.start()
            self._store.wait()
            self._llm.wait()
        # The clients' own libraries take seconds to load: meanwhile the registry starts.
        threading.Thread(target=_load_clients, daemon=True).start()

    def _open_and_close(self) -> None:
        """Show that each system answers anyone, close it, and show that it no longer does."""
        systems = (self._llm, self._store, self._registry)
        self._show.title("As they come: open to anyone")
        for system in systems:
            if system is self._registry:
                with self._show.doing("waiting for MLflow (it takes about half a minute)"):
                    self._registry.wait()
                    self._registry.seed()
            probe = system.probe()
            self._show.line(f"open    {system.title}: {probe.said}")
            require(probe.open, f"the {system.title} was expected to be open")
        with self._show.doing("closing them: keys and a private socket that only the gateway has"):
            for system in systems:
                system.close()
        self._show.title("Closed: the same requests again")
        for system in systems:
            probe = system.probe()
            self._show.line(f"closed  {system.title}: {probe.said}")
            require(not probe.open, f"the {system.title} still answers anyone: {probe.said}")

    def _raise_the_house(self) -> None:
        with self._show.doing("waiting for Doorward: control plane and gateway, with its own CA"):
            self._house.wait()
        with self._show.doing("applying org.yaml, issuing keys, enrolling devices"):
            self._house.apply()
            self._stage.dress()

    def _scenes(self) -> list[tuple[str, Callable[[], list[str]]]]:
        stage, store = self._stage, self._store
        return [
            (
                "dana on her managed laptop reads the training data: personal columns arrive masked",
                lambda: beats_data.reads_masked(stage, store),
            ),
            (
                "dana, same key, without the laptop's certificate: denied, and told what would let her in",
                lambda: beats_data.denied_without_device(stage),
            ),
            (
                "dana with a key for marketing, or claiming a purpose not hers: denied, the purpose is named",
                lambda: beats_data.denied_for_another_purpose(stage),
            ),
            (
                "a workload in testing reads live production data: denied, though its owner may",
                lambda: beats_data.denied_in_testing(stage),
            ),
            (
                "eli, data engineer, promotes a model to production: denied; rhea, release manager: allowed",
                lambda: beats_models.only_release_manager_deploys(stage),
            ),
            (
                "bea, business user, chats with the model: allowed; changes a registered model: denied",
                lambda: beats_models.chats_but_does_not_modify(stage),
            ),
            (
                "a script with a valid key exports models one after another: stopped at the 6th",
                lambda: beats_data.export_stops_at_the_limit(stage),
            ),
            (
                "a key is revoked while its answer streams: the stream ends within a second",
                lambda: beats_models.revoked_mid_stream(stage),
            ),
            (
                "one byte of the log is changed: `audit verify` names the record",
                lambda: beats_log.changed_byte_is_named(stage),
            ),
            (
                "what was decided, where to look, how to protect your own",
                lambda: closing.words(stage, self._show),
            ),
        ]

    def _play(self, title: str, scene: Callable[[], list[str]]) -> None:
        number = len(self._beats) + 1
        try:
            with self._show.doing(f"{number}  {title}", plainly=False):
                lines = scene()
            held = True
        except NotHeldError as reason:
            lines, held = [str(reason)], False
        except Exception as reason:  # noqa: BLE001 -- whatever a stock client throws fails its beat alone
            lines, held = [f"{type(reason).__name__}: {reason}"], False
        self._beats.append(Beat(number, title, held, tuple(lines)))
        self._show.beat(number, title, lines, held=held)


def _load_clients() -> None:
    with contextlib.suppress(ImportError):
        import boto3  # type: ignore[import-untyped]  # noqa: F401 -- it ships no types
        import mlflow  # noqa: F401
        import openai  # noqa: F401
