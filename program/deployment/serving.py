"""Deploy to Model Serving: see what is there, say what will be done, do what is left to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import mlflow

from program.deployment import endpoint as endpoints
from program.deployment.access import grant, wanted_access
from program.deployment.endpoint import Endpoint, Reply, Served
from program.deployment.fingerprint import FINGERPRINT_TAG, fingerprint
from program.deployment.log import input_example, log_agent
from program.deployment.quiet import quiet_mlflow
from program.deployment.registry import (
    CHECKED_TAG,
    check_interface,
    find_logged,
    find_version,
    register,
    registry_errors,
    versions,
)
from program.deployment.resources import as_oneself, uses
from program.deployment.serving_target import ServingTarget, serving_target
from program.deployment.survey import survey_resources, survey_schema
from program.deployment.trial import try_model
from program.settings import Settings
from program.tracking import connect
from retrieval.errors import CiteqaError, ConfigurationError, DeploymentError
from retrieval.workspace import Workspace, open_workspace
from retrieval.workspace_errors import workspace_errors

Say = Callable[[str], None]

_BY_DATABRICKS = (
    *("ENABLE_LANGCHAIN_STREAMING", "ENABLE_MLFLOW_TRACING", "RETURN_REQUEST_ID_IN_RESPONSE"),
    "MLFLOW_EXPERIMENT_ID",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is there, and what deploying would do: `steps` by name, each with a sentence.

    `version` and `logged` are what was made from the very same before. `troubles` stand against deploying.
    """

    workspace: Workspace
    settings: Settings
    target: ServingTarget
    user: str
    fingerprint: str
    version: int | None
    logged: str | None
    is_checked: bool
    endpoint: Endpoint | None
    steps: dict[str, str] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deployed:
    """What can be asked now, and where. `reply` is what it answered when it was ready, where it was waited for."""

    model: str
    version: int
    endpoint: str
    endpoint_url: str
    playground_url: str
    review_app_url: str | None
    warnings: tuple[str, ...] = ()
    reply: Reply | None = None


def plan_serving(settings: Settings, version: int | None = None) -> Plan:
    """Look at everything and change nothing. With `version`, that registered version is what is deployed.

    Raises:
        ConfigurationError: if the settings cannot be meant, or no workspace is named.
        RetrievalError, ProgramStateError: if something that travels along is not there.
        WorkspaceError: if the workspace refuses to be looked at.
    """
    target = serving_target(settings)
    workspace = open_workspace()
    with workspace_errors(f"The workspace {workspace.host} cannot be used"):
        user = str(workspace.client.current_user.me().user_name)
        troubles = [*survey_schema(workspace.client, target.schema, user)]
        troubles += survey_resources(workspace.client, settings)
    experiment_id = _experiment_id(settings)
    print_ = fingerprint(settings) if version is None else ""
    there = [] if troubles else versions(target.model)
    if version is not None and version not in there:
        raise ConfigurationError(f"There is no version {version} of '{target.model}', only {_listed(there)}.")
    found = version if version is not None or not there else find_version(target.model, print_)
    logged = find_logged(experiment_id, print_) if found is None and experiment_id else None
    plan = Plan(
        workspace,
        settings,
        target,
        user,
        print_,
        found,
        logged.model_uri if logged else None,
        is_checked=bool(logged and logged.tags.get(CHECKED_TAG)),
        endpoint=endpoints.look(workspace, target.endpoint),
        troubles=tuple(troubles),
    )
    return replace(plan, steps=dict(_steps(plan, there)))


def deploy_serving(plan: Plan, say: Say = lambda _: None, *, wait: bool = True) -> Deployed:
    """Do what the plan says. What was done stays when something fails, and is not done again.

    Raises:
        DeploymentError: if something stands against it; or if a step failed, with what is there by then.
    """
    if plan.troubles:
        raise DeploymentError("Nothing was done: " + "; ".join(plan.troubles) + ".")
    return _Deployment(plan, say).run(wait)


class _Deployment:
    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._there: list[str] = []
        self._warnings: list[str] = []
        self._review_app: str | None = None

    def run(self, wait: bool) -> Deployed:
        plan, steps = self._plan, self._plan.steps
        target, timeout_s = plan.target, 60 * plan.settings.deployment.timeout_min
        version = plan.version
        with self._step("Looking at the experiment"), quiet_mlflow():
            connect(plan.settings.tracking)
        if version is None:
            version = self._make_version()
        self._there.append(f"version {version} of {target.model}")
        if "interface" in steps:
            with self._step("Checking the version"):
                check_interface(target.model, version)
        if "wait first" in steps:
            with self._step("Waiting for the update that is under way"):
                endpoints.wait_until_ready(plan.workspace, target.endpoint, timeout_s, self._say)
        if "deploy" in steps:
            self._tell("deploy")
            with self._step("Deploying"):
                self._deploy(version)
            self._there.append(f"the endpoint {target.endpoint}, which is being updated")
        for name, do in (("tags", self._set_tags), ("permissions", self._permit)):
            if name in steps:
                self._tell(name)
                with self._step(f"Setting {name}"):
                    do()
        reply = self._wait(version, timeout_s) if wait else None
        return self._deployed(version, reply)

    def _make_version(self) -> int:
        plan, settings = self._plan, self._plan.settings
        uri = plan.logged
        if uri is None:
            self._tell("log")
            with self._step("Logging the agent"), quiet_mlflow():
                info = log_agent(settings, name=_name(plan), tags={FINGERPRINT_TAG: plan.fingerprint})
                uri = str(info.model_uri)
        self._there.append(f"the logged model {uri}")
        if "check" in plan.steps:
            self._tell("check")
            with self._step("Checking the logged model"):
                where = settings.deployment.check
                assert where != "none"
                with as_oneself(settings) as token:
                    trial = try_model(
                        uri,
                        input_example(settings),
                        where,
                        environment=plan.target.environment,
                        user_token=token,
                        say=self._say,
                    )
                self._warnings += trial.warnings
                with registry_errors("The check cannot be noted"):
                    mlflow.set_logged_model_tags(uri.rpartition("/")[2], {CHECKED_TAG: where})
                self._say(
                    f"loaded in {trial.load_s:.1f} s, answered in {trial.answer_s:.1f} s with {len(trial.links)} links"
                )
        self._tell("register")
        with self._step("Registering"):
            return register(uri, plan.target.model, plan.fingerprint)

    def _deploy(self, version: int) -> None:
        plan = self._plan
        there = plan.endpoint.version(plan.target.model, version) if plan.endpoint else None
        if plan.endpoint is not None and there is not None:
            # databricks-agents refuses a version that is served already.
            shares = [(_as_set(one, plan), 100) if one is there else (one, 0) for one in plan.endpoint.served]
            endpoints.update(plan.workspace, plan.endpoint, shares)
        else:
            self._review_app = _deploy_by_agents(plan, version)

    def _set_tags(self) -> None:
        from databricks.sdk.service.serving import EndpointTag

        plan = self._plan
        tags = [EndpointTag(key, value) for key, value in plan.settings.deployment.tags.items()]
        with workspace_errors(f"The endpoint '{plan.target.endpoint}' cannot be tagged"):
            plan.workspace.client.serving_endpoints.patch(plan.target.endpoint, add_tags=tags)

    def _permit(self) -> None:
        found = endpoints.look(self._plan.workspace, self._plan.target.endpoint)
        if found is not None:
            grant(self._plan.workspace, self._plan.target.model, found.id, self._plan.settings.deployment)

    def _wait(self, version: int, timeout_s: float) -> Reply:
        plan = self._plan
        with self._step("Waiting for the endpoint"):
            ready = endpoints.wait_until_ready(plan.workspace, plan.target.endpoint, timeout_s, self._say)
        with self._step("Asking the endpoint"):
            reply = endpoints.ask(plan.workspace, plan.target.endpoint, input_example(plan.settings))
        if reply.links and set(reply.links) != set(reply.streamed_links):
            self._warnings.append("its stream tells other sources than its answer: Playground may show none")
        self._prune(ready, timeout_s)
        return reply

    def _prune(self, endpoint: Endpoint, timeout_s: float) -> None:
        """Serve no more what is there only to roll back to, beyond as many as shall be kept: it costs as it stands."""
        old = _superfluous(endpoint, self._plan)
        if not old:
            return
        numbers = _listed([one.version for one in old])
        self._say(
            f"take version {numbers} off the endpoint: {self._plan.settings.deployment.keep_versions} are kept"
        )
        with self._step(f"Taking version {numbers} off the endpoint"):
            # Not by databricks-agents' delete_deployment: it removes what its own list of deployments does not
            # hold, and with the last of these the endpoint.
            kept = [(one, one.traffic) for one in endpoint.served if one not in old]
            endpoints.update(self._plan.workspace, endpoint, kept)
            endpoints.wait_until_ready(self._plan.workspace, endpoint.name, timeout_s, self._say)

    def _deployed(self, version: int, reply: Reply | None) -> Deployed:
        plan, target = self._plan, self._plan.target
        host, name = plan.workspace.host, quote(target.endpoint)
        return Deployed(
            target.model,
            version,
            target.endpoint,
            f"{host}/ml/endpoints/{name}",
            f"{host}/ml/playground?endpointName={name}",
            self._review_app or _review_app(target.model),
            tuple(self._warnings),
            reply,
        )

    def _tell(self, step: str) -> None:
        self._say(self._plan.steps[step])

    @contextmanager
    def _step(self, doing: str) -> Iterator[None]:
        """What fails within says what is there by then, and how to go on."""
        try:
            yield
        except (CiteqaError, ValueError) as error:  # ValueError: how databricks-agents refuses
            there = f" There by now: {_listed(self._there)}." if self._there else " Nothing was made."
            told = str(error).rstrip(".")
            raise DeploymentError(f"{doing}: {told}.{there} The same command goes on from there.") from error


def _steps(plan: Plan, there: Sequence[int]) -> Iterator[tuple[str, str]]:
    target, deployment = plan.target, plan.settings.deployment
    if plan.version is None:
        if plan.logged is None:
            yield "log", f"log the agent in {plan.settings.tracking.experiment}{_access(plan.settings)}"
        if deployment.check != "none" and not plan.is_checked:
            where = (
                "an environment of its own" if deployment.check == "environment" else "a process of its own"
            )
            yield (
                "check",
                f"load it in {where} and ask it: {input_example(plan.settings)['input'][0]['content']}",
            )
        number = max(there, default=0) + 1
        yield "register", f"register it as version {number} of {target.model}"
    elif not plan.fingerprint:
        yield "interface", f"check that version {plan.version} of {target.model} is asked as MLflow here asks"
    endpoint = plan.endpoint
    if endpoint is not None and endpoint.update == "IN_PROGRESS":
        yield "wait first", f"wait for the update of {target.endpoint} that is under way"
    if what := _change(plan):
        yield "deploy", what
    elif deployment.tags.items() - dict(endpoint.tags or {} if endpoint else {}).items():
        yield "tags", f"tag {target.endpoint}: {_listed([f'{k}={v}' for k, v in deployment.tags.items()])}"
    if missing := wanted_access(plan.workspace, endpoint.id if endpoint else None, deployment):
        yield "permissions", "; ".join(f"let {who} {what}" for who, what in missing)


def _change(plan: Plan) -> str | None:
    """What is done to the endpoint, in a sentence; None where it serves what it shall."""
    target, deployment, endpoint = plan.target, plan.settings.deployment, plan.endpoint
    size = f"{deployment.workload_size}, {'scaled to zero when unused' if deployment.scale_to_zero else 'always on'}"
    if endpoint is None:
        return f"create the endpoint {target.endpoint} ({size}), which takes 10 to 20 minutes"
    there = endpoint.version(target.model, plan.version) if plan.version is not None else None
    if there is None:
        current = endpoint.current(target.model)
        instead = f", in the place of version {current.version}" if current else ""
        return f"serve it on {target.endpoint} ({size}){instead}"
    if there.traffic < 100:
        return f"send all requests of {target.endpoint} to version {there.version}"
    if _as_set(there, plan) != there:
        return f"update the variables and the size of version {there.version} on {target.endpoint} ({size})"
    return None


def _as_set(served: Served, plan: Plan) -> Served:
    """A served version with the variables and the size that the settings say."""
    kept = {name: value for name, value in served.environment.items() if name in _BY_DATABRICKS}
    deployment = plan.settings.deployment
    return replace(
        served,
        environment={**kept, **plan.target.environment},
        workload_size=deployment.workload_size,
        scale_to_zero=deployment.scale_to_zero,
        instance_profile=deployment.instance_profile or served.instance_profile,
    )


def _deploy_by_agents(plan: Plan, version: int) -> str | None:
    """Serve a version by databricks-agents; the address of its Review App."""
    from databricks.agents import deploy

    deployment = plan.settings.deployment
    with _agents_errors(f"Version {version} of '{plan.target.model}' cannot be deployed"):
        made = deploy(
            plan.target.model,
            version,
            scale_to_zero=deployment.scale_to_zero,
            environment_vars=dict(plan.target.environment),
            instance_profile_arn=deployment.instance_profile,
            tags=dict(deployment.tags) or None,
            workload_size=deployment.workload_size,
            endpoint_name=plan.target.endpoint,
            description=deployment.description,
            usage_policy_id=deployment.usage_policy,
        )
    return made.review_app_url if made else None


def _review_app(model: str) -> str | None:
    from databricks.agents import get_deployments

    with _agents_errors(f"The deployments of '{model}' cannot be listed"):
        made = get_deployments(model)
    return made[-1].review_app_url if made else None


@contextmanager
def _agents_errors(what: str) -> Iterator[None]:
    with registry_errors(what), quiet_mlflow():
        yield


def _superfluous(endpoint: Endpoint, plan: Plan) -> list[Served]:
    """Versions that get no requests though as many newer ones are served as shall be kept."""
    served = [one for one in endpoint.served if one.model == plan.target.model]
    served.sort(key=lambda one: one.version, reverse=True)
    return [one for one in served[plan.settings.deployment.keep_versions :] if one.traffic == 0]


def _experiment_id(settings: Settings) -> str | None:
    with registry_errors(f"The experiment '{settings.tracking.experiment}' cannot be looked at"):
        mlflow.set_tracking_uri(settings.tracking.uri)
        mlflow.set_registry_uri("databricks-uc")
        found = mlflow.get_experiment_by_name(settings.tracking.experiment)
    return str(found.experiment_id) if found else None


def _access(settings: Settings) -> str:
    used = uses(settings)
    names = [*used.endpoints, *used.indexes, *used.databases, *used.tables, *used.functions]
    own = f", with access to {_listed(names)}" if names else ""
    return own + (f", on behalf of the user for {_listed(used.scopes)}" if used.scopes else "")


def _name(plan: Plan) -> str:
    return plan.target.model.rpartition(".")[2]


def _listed(names: Sequence[object]) -> str:
    return ", ".join(str(name) for name in names) or "none"
