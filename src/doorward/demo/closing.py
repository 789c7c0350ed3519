"""The story's last beat: what was decided, where to look, how to protect one's own systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from doorward.audit.query import Query
from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid
from doorward.demo.show import Show
from doorward.demo.stage import Stage, require

_COLUMNS = ("who", "action", "what", "decision", "because", "times")
_CUSTOMERS = "'Dataset::\"store/training/customers.csv\"'"
_DEPTH = 2


def words(stage: Stage, show: Show) -> list[str]:
    """Print a table of what was decided, the addresses, and the next step."""
    tally = Counter(_row(record) for record in stage.reader.records(Query(kind="decision")))
    require(len(tally) > 0, "nothing is on record")
    show.title("What was decided")
    show.table(_COLUMNS, [(*row, times) for row, times in tally.items()])
    house, data = stage.house, stage.house.data
    show.title("Where to look")
    show.line(f"console   {house.console_link()}")
    show.line(f"          opens once, for a look; `doorward admin link --data {data}` makes another")
    show.line(f"gateway   {house.url}/llm/v1  {house.url}/registry  {house.url}/store")
    show.line(f"as dana   source {stage.environment('dana')}   then use openai, mlflow, boto3, aws as always")
    show.line(f"the log   doorward audit tail -f --data {data}")
    show.line(f"policies  {house.home / 'policies'}: change one and it rules at once")
    show.line(f"ask why   doorward can 'User::\"dana\"' export {_CUSTOMERS} --why --data {data}")
    show.title("Protect your own")
    show.line("doorward protect openai http://127.0.0.1:8000    (or mlflow, s3: writes config and policies)")
    show.line("doorward doctor                                  (finds what still stands open)")
    return [_nothing_leaked(stage)]


def _nothing_leaked(stage: Stage) -> str:
    """Look for every key, prompt and answer in all that was written; return how much was searched."""
    canaries = {stage.seen["prompt"], stage.seen["answer"], *stage.secrets()}
    files = [
        file
        for folder in (stage.house.data / "audit", stage.house.logs)
        for file in folder.rglob("*")
        if file.is_file()
    ]
    for file in files:
        content = file.read_bytes()
        for canary in canaries:
            require(str(canary).encode() not in content, f"{file} holds a key, a prompt or an answer")
    return f"no key, prompt or answer is in the log or any output ({len(files)} files searched)"


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    judged = record["code"] in {"allowed", "denied"}
    reasons = ", ".join(record["determining"]) or "no policy permits it"
    return (
        _name(record["principal"]) or "nobody",
        record["action"] or "-",
        _name(record["resource"]) or "-",
        record["decision"],
        reasons if judged else record["code"],
    )


def _name(entity: str) -> str:
    """Return an entity's name, what lies deep under an asset shortened."""
    try:
        parts = EntityUid.parse(entity).id.split("/")
    except InvalidRequestError:
        return entity
    return "/".join(parts[:_DEPTH]) + ("/…" if len(parts) > _DEPTH else "")
