"""Give MLflow's things their resource names, and read the names its requests use for them.

Experiments and runs are `Dataset::"<upstream>/experiments/<id>"` and `…/runs/<id>`, registered models
`Model::"<upstream>/<name>"` with versions `…/<version>` below, logged models (MLflow 3)
`Model::"<upstream>/logged-models/<id>"`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import msgspec

from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid
from doorward.gateway.strict_json import refuse_variants

LOGGED_MODELS = "logged-models"
_EXPERIMENT = re.compile(r"0|[1-9][0-9]{0,18}")
_RUN = re.compile(r"[0-9a-f]{32}")
_LOGGED_MODEL = re.compile(r"m-[0-9a-f]{32}")
# `01` and `1` are one version to MLflow, so only one spelling is read here.
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_SOURCE = re.compile(r"(?P<scheme>models|runs|mlflow-artifacts):/(?P<rest>[^/].*)", re.DOTALL)
_MAX_NAME = 256


class Names:
    """Build resource names below one upstream; every method raises InvalidRequestError for a bad id."""

    def __init__(self, upstream: str) -> None:
        """Take the upstream's name."""
        self._upstream = upstream

    def experiment(self, value: Any) -> EntityUid:
        """Return the experiment with this id."""
        return self._dataset("experiments", _id(value, _EXPERIMENT, "experiment id"))

    def experiments(self) -> EntityUid:
        """Return what all experiments lie under."""
        return EntityUid.of("Dataset", f"{self._upstream}/experiments")

    def run(self, value: Any) -> EntityUid:
        """Return the run with this id."""
        return self._dataset("runs", _id(value, _RUN, "run id"))

    def logged_model(self, value: Any) -> EntityUid:
        """Return the logged model with this id."""
        return self._model(f"{LOGGED_MODELS}/{_id(value, _LOGGED_MODEL, 'model id')}")

    def logged_models(self) -> EntityUid:
        """Return what all logged models lie under."""
        return self._model(LOGGED_MODELS)

    def model(self, name: Any) -> EntityUid:
        """Return the registered model of this name."""
        return self._model(_registered_name(name))

    def version(self, name: Any, version: Any) -> EntityUid:
        """Return one version of a registered model."""
        return self._model(f"{_registered_name(name)}/{_id(version, _VERSION, 'version')}")

    def source(self, source: str) -> EntityUid:
        """Return what a model version is made from; refuse addresses outside the governed stores."""
        match = _SOURCE.fullmatch(source)
        if match is None or not _is_plain(match["rest"]):
            refuse(
                "the model version's source lies outside the governed stores",
                "Use models:/, runs:/ or mlflow-artifacts:/ without a host.",
            )
        head, _, tail = match["rest"].partition("/")
        match match["scheme"]:
            case "runs":
                return self.run(head)
            case "mlflow-artifacts":
                return self.artifact(match["rest"]).owner(self)
        return self._models_source(head, tail)

    def _models_source(self, head: str, tail: str) -> EntityUid:
        if not tail and _LOGGED_MODEL.fullmatch(head):
            return self.logged_model(head)
        if not tail and "@" in head:
            return self.model(head.partition("@")[0])
        return self.version(head, tail)

    def artifact(self, path: str) -> ArtifactPath:
        """Return whose artifact a path of the artifact store is; refuse what belongs to nobody."""
        return ArtifactPath.read(path)

    def _dataset(self, kind: str, identifier: str) -> EntityUid:
        return EntityUid.of("Dataset", f"{self._upstream}/{kind}/{identifier}")

    def _model(self, name: str) -> EntityUid:
        return EntityUid.of("Model", f"{self._upstream}/{name}")


class ArtifactPath(msgspec.Struct, frozen=True, kw_only=True):
    """Where an artifact lies: `<experiment>/<run>/artifacts/…` or `<experiment>/models/<id>/artifacts/…`."""

    experiment: str
    run: str = ""
    logged_model: str = ""
    within: str = ""

    @classmethod
    def read(cls, path: str) -> ArtifactPath:
        """Read a path in the layout of MLflow's own artifact proxy; raise InvalidRequestError otherwise."""
        if _is_plain(path):
            match path.split("/"):
                case [experiment, "models", model, "artifacts", *rest] if _LOGGED_MODEL.fullmatch(model):
                    return cls(experiment=experiment, logged_model=model, within="/".join(rest).strip("/"))
                case [experiment, run, "artifacts", *rest] if _RUN.fullmatch(run):
                    return cls(experiment=experiment, run=run, within="/".join(rest).strip("/"))
        return refuse(
            "the artifact path belongs to no run and no model",
            "Use <experiment>/<run>/artifacts/… or <experiment>/models/<id>/artifacts/….",
        )

    @property
    def identifier(self) -> str:
        """Return the id of the run or logged model."""
        return self.run or self.logged_model

    def owner(self, names: Names) -> EntityUid:
        """Return the run or logged model."""
        return names.run(self.run) if self.run else names.logged_model(self.logged_model)

    def owners(self, names: Names) -> tuple[EntityUid, ...]:
        """Return the run or logged model, and the experiment it lies in."""
        return (self.owner(names), names.experiment(self.experiment))

    def lies_in(self, source: str) -> bool:
        """Return whether a version made from `source` holds this artifact; in doubt, yes."""
        match = _SOURCE.fullmatch(source)
        if match is None or not self.run:
            return True
        rest = match["rest"]
        if match["scheme"] == "runs":
            within = rest.partition("/")[2]
        elif match["scheme"] == "mlflow-artifacts" and rest.startswith(f"{self.experiment}/{self.run}/"):
            within = rest.removeprefix(f"{self.experiment}/{self.run}/artifacts").lstrip("/")
        else:
            return True
        within = within.strip("/")
        return not within or self.within == within or self.within.startswith(within + "/")


class Fields:
    """The fields of one request, whichever way they came; naming fields are text or refused."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Take field names in MLflow's own spelling."""
        self._values = values

    def text(self, name: str) -> str:
        """Return a field that must be there and not empty."""
        value = self._values.get(name)
        if not isinstance(value, str) or not value:
            refuse(f"Missing value for required parameter '{name}'.", "Give it as text.")
        return value

    def maybe(self, name: str) -> str:
        """Return a text field, empty when it is not there."""
        value = self._values.get(name)
        return "" if value is None or value == "" else self.text(name)

    def flag(self, name: str) -> bool:
        """Return a field that is true, false or not there."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            refuse(f"`{name}` must be true or false", "")
        return bool(value)

    def run_id(self) -> str:
        """Return the run, which older clients also name as `run_uuid`."""
        names = {self.maybe("run_id"), self.maybe("run_uuid")} - {""}
        if len(names) != 1:
            refuse("the request must name one run", "Give run_id, and run_uuid only with the same value.")
        return names.pop()

    def items(self, name: str, keys: Collection[str]) -> list[dict[str, Any]]:
        """Return a list of objects that have only these keys."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            refuse(f"`{name}` must be a list of objects", "")
        for item in value:
            refuse_unknown(item, keys, f"an entry of `{name}`")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, empty when it is not there."""
        value = self._values.get(name) or []
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            refuse(f"`{name}` must be a list of texts", "")
        return tuple(value)


def refuse_unknown(members: Mapping[str, Any], allowed: Collection[str], where: str) -> None:
    """Refuse another spelling of an allowed key (protobuf reads `runId` too), and any other key."""
    refuse_variants(members, allowed)
    for key in members:
        if key not in allowed:
            refuse(f"{where} has the field `{key[:64]}`, which is not allowed here", "Leave it out.")


def refuse(message: str, hint: str) -> NoReturn:
    """Raise InvalidRequestError."""
    raise InvalidRequestError(message, hint=hint)


def _registered_name(name: Any) -> str:
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= _MAX_NAME
        or name != name.strip()
        or not name.isprintable()
        or any(c in "/:\\" for c in name)
        or name in {".", "..", LOGGED_MODELS}
    ):
        refuse("the model's name is empty, too long, reserved, or holds `/`, `:`, `\\` or control characters",
               "Use a plain name.")  # fmt: skip
    return name


def _id(value: Any, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        refuse(f"the {what} is not in MLflow's own form", "Use the id as the server gave it.")
    return value


def _is_plain(path: str) -> bool:
    # MLflow decodes artifact paths again and again, so nothing that decoding could change may pass.
    return (
        path.isprintable()
        and not any(c in "%#?\\;" for c in path)
        and not any(segment in {"", ".", ".."} for segment in path.rstrip("/").split("/"))
    )
