"""What every beat of the story needs: people with their keys and devices, and the audit log as witness."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doorward.audit.query import Query
from doorward.audit.reader import AuditReader, joined
from doorward.demo.installation import Device, Installation, Key

_RECORD_DEADLINE = 5.0


class NotHeldError(Exception):
    """A beat of the story did not hold; the message says what was seen instead."""


def require(held: object, sentence: str) -> None:
    """Raise NotHeldError with a sentence unless the claim held."""
    if not held:
        raise NotHeldError(sentence)


@dataclass(frozen=True, slots=True)
class Person:
    """Someone, or a workload, with a key and perhaps a device."""

    name: str
    key: Key
    device: Device | None = None


@dataclass(slots=True)
class Stage:
    """The scene: Doorward running, everyone with their keys, and the log."""

    house: Installation
    people: dict[str, Person] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    def dress(self) -> None:
        """Issue every key and enrol every device of the story, through the management API."""
        house = self.house
        laptop = house.enrol("laptop-7")
        dana = {"user": "dana", "device": "laptop-7"}
        self.people = {
            "dana": Person("dana", house.key(**dana, purpose="fraud-model"), laptop),
            "dana for marketing": Person("dana", house.key(**dana, purpose="marketing"), laptop),
            "dana unbound": Person("dana", house.key(**dana), laptop),
            "dana's script": Person("dana", house.key(user="dana")),
            "etl-test": Person("etl-test", house.key(service="etl-test"), house.enrol("runner-3")),
            "bea on a stream": Person("bea", house.key(user="bea"), house.enrol("laptop-bea")),
        }
        for name in ("omar", "eli", "rhea", "bea"):
            device = house.enrol(f"laptop-{name}")
            self.people[name] = Person(name, house.key(user=name), device)

    def environment(self, name: str) -> Path:
        """Write what stock clients need to be this person, as a file to source; return its path."""
        person, house = self.people[name], self.house
        settings = {
            "OPENAI_BASE_URL": f"{house.url}/llm/v1",
            "OPENAI_API_KEY": person.key.text,
            "SSL_CERT_FILE": str(house.ca),
            "MLFLOW_TRACKING_URI": f"{house.url}/registry",
            "MLFLOW_TRACKING_TOKEN": person.key.text,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(house.ca),
            "MLFLOW_TRACKING_CLIENT_CERT_PATH": str(person.device.both) if person.device else "",
            "AWS_ENDPOINT_URL_S3": f"{house.url}/store",
            "AWS_ACCESS_KEY_ID": person.key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": person.key.secret_access_key,
            "AWS_CA_BUNDLE": str(house.ca),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        file = house.home / f"{name}.env"
        file.touch(mode=0o600)
        lines = [f"export {key}={shlex.quote(value)}" for key, value in settings.items() if value]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    def secrets(self) -> list[str]:
        """Return everything that must stand nowhere: every key, and the upstreams' own credentials."""
        keys = [person.key for person in self.people.values()]
        own = self.house.keys
        return [
            own.llm_key, own.store_secret,
            *(key.text for key in keys), *(key.secret_access_key for key in keys),
        ]  # fmt: skip

    @property
    def reader(self) -> AuditReader:
        """Return the log as it is now."""
        return AuditReader(self.house.data / "audit")

    def decided(self, request_id: str | None) -> Mapping[str, Any]:
        """Return the decision on record for an answer, with its outcome."""
        require(request_id, "the answer carries no Doorward-Request-Id")
        return self._awaited(
            lambda: joined(self.reader.request(str(request_id))), f"request {request_id} is not on record"
        )

    def newest(self, **conditions: str) -> Mapping[str, Any]:
        """Return the newest decision that meets the conditions."""

        def look() -> Mapping[str, Any] | None:
            found = self.reader.latest(1, Query(kind="decision", **conditions)).records
            return found[0] if found else None

        return self._awaited(look, f"nothing on record meets {conditions}")

    def ended(self, request_id: str) -> Mapping[str, Any]:
        """Return how an answer ended, once that is on record."""

        def look() -> Mapping[str, Any] | None:
            story = joined(self.reader.request(request_id))
            return story["outcome"] if story is not None and story["outcome"] else None

        return self._awaited(look, f"how {request_id} ended is not on record")

    def _awaited(self, look: Callable[[], Mapping[str, Any] | None], missing: str) -> Mapping[str, Any]:
        deadline = time.monotonic() + _RECORD_DEADLINE
        while (found := look()) is None:
            require(time.monotonic() < deadline, missing)
            time.sleep(0.05)
        return found
