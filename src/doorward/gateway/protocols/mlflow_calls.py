"""What each understood request of MLflow's REST API does, and to what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum

import msgspec

from doorward.core.model import Action, EntityUid
from doorward.gateway.adapter import Ask
from doorward.gateway.protocols.mlflow_names import Fields, Names, refuse
from doorward.settings import UpstreamSettings

V, C, M, D = Action.VIEW, Action.CREATE, Action.MODIFY, Action.DELETE
_METRIC = {"key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest", "run_id"}
_PAIR = {"key", "value"}


class Kind(Enum):
    """Say what a route's answer needs before it may leave."""

    PASS = ""
    MODEL = "registered_model"
    VERSIONS = "model_versions"
    VERSION = "model_version"
    EXPERIMENT = "experiment"
    RUN = "run"
    LOGGED_MODEL = "model"
    SEARCH = "search"


class Subject(Enum):
    """Say which of MLflow's not-found sentences a route has."""

    MODEL = "Registered Model with name={name} not found"
    VERSION = "Model Version (name={name}, version={version}) not found"
    EXPERIMENT = "No Experiment with id={experiment_id} exists"
    EXPERIMENT_NAME = "Could not find experiment with name '{experiment_name}'"
    RUN = "Run with id={run_id} not found"
    LOGGED_MODEL = "Logged model with ID '{model_id}' not found."
    ARTIFACT = "No such artifact: '{path}'"
    NOTHING = ""


class Call(msgspec.Struct, frozen=True):
    """What a naming function reads: names, fields, and the upstream's deployed stages and aliases."""

    names: Names
    fields: Fields
    settings: UpstreamSettings

    def is_deployed_stage(self, stage: str) -> bool:
        """Return whether a stage counts as deployed; MLflow ignores its case."""
        return stage.casefold() in {name.casefold() for name in self.settings.deployed}

    def is_deployed_alias(self, alias: str) -> bool:
        """Return whether an alias counts as deployed."""
        return alias.casefold() in {name.casefold() for name in self.settings.deployed_aliases}

    def model(self) -> EntityUid:
        """Return the registered model that `name` names."""
        return self.names.model(self.fields.text("name"))

    def version(self) -> EntityUid:
        """Return the version that `name` and `version` name."""
        return self.names.version(self.fields.text("name"), self.fields.text("version"))

    def experiment(self) -> EntityUid:
        """Return the experiment that `experiment_id` names."""
        return self.names.experiment(self.fields.text("experiment_id"))

    def run(self) -> EntityUid:
        """Return the run that `run_id` (and `run_uuid`) names."""
        return self.names.run(self.fields.run_id())

    def logged_model(self) -> EntityUid:
        """Return the logged model that `model_id` names."""
        return self.names.logged_model(self.fields.text("model_id"))


Asks = Callable[[Call], tuple[Ask, ...]]


def one(action: Action, what: Callable[[Call], EntityUid]) -> Asks:
    """Return the naming that asks one thing of one resource."""
    return lambda call: (Ask(action, what(call)),)


def nothing(call: Call) -> tuple[Ask, ...]:  # noqa: ARG001 -- every name of the answer is decided instead
    """Ask nothing: every name in the answer is decided instead."""
    return ()


def rename(call: Call) -> tuple[Ask, ...]:
    """Ask to change the old name and to create the new one."""
    return (Ask(M, call.model()), Ask(C, call.names.model(call.fields.text("new_name"))))


def create_model(call: Call) -> tuple[Ask, ...]:
    """Ask to create a registered model."""
    call.fields.items("tags", _PAIR)
    return (Ask(C, call.model()),)


def create_version(call: Call) -> tuple[Ask, ...]:
    """Ask to create under the model's name and to read what the version is made from."""
    fields, names = call.fields, call.names
    fields.items("tags", _PAIR)
    if (link := fields.maybe("run_link")) and not re.match(r"https?://", link):
        refuse("`run_link` is not an http address", "Leave it out.")
    # As with any copy: the source is read. What it is said to come from is named, and so must be visible.
    asks = [Ask(C, call.model()), Ask(Action.READ, names.source(fields.text("source")))]
    if run_id := fields.maybe("run_id"):
        asks.append(Ask(V, names.run(run_id)))
    if model_id := fields.maybe("model_id"):
        asks.append(Ask(V, names.logged_model(model_id)))
    return tuple(asks)


def transition(call: Call) -> tuple[Ask, ...]:
    """Ask to deploy."""
    # Leaving a deployed stage changes what runs as much as entering one: until the current stage is known
    # (see `refine`), every transition is a deployment.
    call.fields.text("stage")
    asks = (Ask(Action.DEPLOY, call.version()),)
    return (
        (*asks, Ask(Action.DEPLOY, call.model())) if call.fields.flag("archive_existing_versions") else asks
    )


def set_alias(call: Call) -> tuple[Ask, ...]:
    """Ask to deploy for a deployed alias, to modify for any other."""
    deployed = call.is_deployed_alias(call.fields.text("alias"))
    return (Ask(Action.DEPLOY if deployed else M, call.version()),)


def delete_alias(call: Call) -> tuple[Ask, ...]:
    """Ask to deploy for a deployed alias, since taking it away stops what runs; else to modify."""
    deployed = call.is_deployed_alias(call.fields.text("alias"))
    return (Ask(Action.DEPLOY if deployed else M, call.model()),)


def create_experiment(call: Call) -> tuple[Ask, ...]:
    """Ask to create an experiment, in the server's own store."""
    call.fields.text("name")
    call.fields.items("tags", _PAIR)
    if call.fields.maybe("artifact_location"):
        refuse(
            "`artifact_location` would place artifacts outside the governed store",
            "Leave it out: the server chooses its own store.",
        )
    return (Ask(C, call.names.experiments()),)


def create_run(call: Call) -> tuple[Ask, ...]:
    """Ask to create in the experiment."""
    call.fields.items("tags", _PAIR)
    return (Ask(C, call.experiment()),)


def log_metric(call: Call) -> tuple[Ask, ...]:
    """Ask to modify the run, and the logged model it is a metric of."""
    model = call.fields.maybe("model_id")
    asks = (Ask(M, call.run()),)
    return (*asks, Ask(M, call.names.logged_model(model))) if model else asks


def log_batch(call: Call) -> tuple[Ask, ...]:
    """Ask to modify the run, and the logged models its metrics are of."""
    run = call.fields.run_id()
    for name in ("params", "tags"):
        call.fields.items(name, _PAIR)
    models = set()
    for metric in call.fields.items("metrics", _METRIC):
        if metric.get("run_id") not in (None, "", run):
            refuse("a metric names another run than the request", "Log one run at a time.")
        if metric.get("model_id"):
            models.add(call.names.logged_model(metric["model_id"]))
    return (Ask(M, call.run()), *(Ask(M, model) for model in sorted(models)))


def log_inputs(call: Call) -> tuple[Ask, ...]:
    """Ask to modify the run and to view the models it reads."""
    call.fields.items("datasets", {"tags", "dataset"})
    return (Ask(M, call.run()), *_models_of(call, V, {"model_id"}))


def log_outputs(call: Call) -> tuple[Ask, ...]:
    """Ask to modify the run and the models it writes."""
    return (Ask(M, call.run()), *_models_of(call, M, {"model_id", "step"}))


def _models_of(call: Call, action: Action, keys: set[str]) -> Iterator[Ask]:
    models = {call.names.logged_model(item.get("model_id")) for item in call.fields.items("models", keys)}
    return (Ask(action, model) for model in sorted(models))


def histories(call: Call) -> tuple[Ask, ...]:
    """Ask to view every run."""
    runs = call.fields.texts("run_ids")
    if not runs:
        refuse("Missing value for required parameter 'run_ids'.", "Name at least one run.")
    return tuple(Ask(V, call.names.run(run)) for run in sorted(set(runs)))


def create_logged(call: Call) -> tuple[Ask, ...]:
    """Ask to create a logged model in its experiment and to modify the run it comes from."""
    for name in ("params", "tags"):
        call.fields.items(name, _PAIR)
    asks = (Ask(C, call.names.logged_models()), Ask(C, call.experiment()))
    run = call.fields.maybe("source_run_id")
    return (*asks, Ask(M, call.names.run(run))) if run else asks


def change_logged(call: Call) -> tuple[Ask, ...]:
    """Ask to modify a logged model."""
    for name in ("params", "tags"):
        call.fields.items(name, _PAIR)
    return (Ask(M, call.logged_model()),)


def artifacts_of(call: Call) -> tuple[Ask, ...]:
    """Ask to view the run whose artifacts are listed."""
    if call.fields.maybe("path"):
        call.names.artifact(f"0/{call.fields.run_id()}/artifacts/{call.fields.text('path')}")
    return (Ask(V, call.run()),)


def search_logged(call: Call) -> tuple[Ask, ...]:
    """Ask nothing, and check the nested fields."""
    call.fields.items("datasets", {"dataset_name", "dataset_digest"})
    call.fields.items("order_by", {"field_name", "ascending", "dataset_name", "dataset_digest"})
    return ()
