"""The connection to a Kubeflow Pipelines backend: address, credentials, and its failures as one line of ours."""

import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glintru_model.errors import GlintruError, InputError, PipelineError
from glintru_model.tracking.client import refuse_credentials, without_secrets

TIMEOUT_SECONDS = (5, 30)  # to connect, to answer; each request is tried twice
_INSTALLED_IN = "kubeflow"  # the namespace of a single-user backend


@dataclass(frozen=True)
class Backend:
    """Where the backend is and how to sign in: by a bearer token, a session cookie or a service account.

    `service_account_token` is the path of a projected token, which is read anew for each request. `namespace` is
    the profile's namespace of a multi-user backend. Credentials are never shown by `repr`.
    """

    host: str
    namespace: str = ""
    token: str = field(default="", repr=False)
    cookie: str = field(default="", repr=False)
    service_account_token: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^\s/]+\S*", self.host):
            raise InputError(f"KFP_HOST {without_secrets(self.host)!r}, allowed: http://... or https://...")
        refuse_credentials(self.host, "KFP_HOST", "set KFP_TOKEN or KFP_COOKIE instead")  # the address is shown
        for name in ("token", "cookie"):
            value = getattr(self, name)
            if not (value.isascii() and value.isprintable()):  # an HTTP client would quote it in its error
                raise InputError(f"Kubeflow Pipelines: the {name} holds a line break or what no header can hold")
        given = [name for name in ("token", "cookie", "service_account_token") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"Kubeflow Pipelines: {' and '.join(given)} are given, allowed: one way to sign in")
        if self.service_account_token and not Path(self.service_account_token).is_file():
            raise InputError(f"service account token {self.service_account_token}: no such file")

    @property
    def pod_namespace(self) -> str:
        """The namespace that tasks run in, as far as it has been said."""
        return self.namespace or _INSTALLED_IN

    @property
    def pod_namespaces(self) -> list[str]:
        """Where to look for tasks: a single-user backend runs them beside itself, whatever namespace was said."""
        return list(dict.fromkeys([self.pod_namespace, _INSTALLED_IN]))

    def run_url(self, run_id: str) -> str:
        """Return the page of a run."""
        return f"{self.host.rstrip('/')}/#/runs/details/{run_id}"

    def connect(self) -> Any:
        """Make a `kfp.Client` that has been answered.

        Raises:
            InputError: the credentials are refused, or a multi-user backend needs a namespace.
            PipelineError: the backend is not reachable, or is none.
        """
        from kfp import Client
        from kfp.client import ServiceAccountTokenVolumeCredentials

        credentials = None
        if self.service_account_token:
            credentials = ServiceAccountTokenVolumeCredentials(self.service_account_token)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # kfp's about versions that nobody has any more
                client = Client(
                    host=self.host,
                    existing_token=self.token or None,
                    cookies=self.cookie or None,
                    credentials=credentials,
                    namespace=self.pod_namespace + " ",  # any but its default, for which it would ask 5 times in 25 s
                )
            _bound_requests(client._healthz_api.api_client.rest_client)
            answer = client._healthz_api.healthz_service_get_healthz(_preload_content=False).data
        except Exception as error:
            if getattr(error, "status", None) == 404:
                raise self._no_api() from error
            raise self.explain(error) from error
        multi_user = self._is_multi_user(answer)
        if multi_user and not self.namespace:
            raise InputError(f"{self.host}: a multi-user backend needs your profile's namespace: set KFP_NAMESPACE")
        # a single-user backend refuses requests that name one
        client._context_setting["namespace"] = self.namespace if multi_user else ""
        return client

    def explain(self, error: Exception) -> GlintruError:
        """Turn whatever kfp and its HTTP client raise into one line that says what to do."""
        if isinstance(error, GlintruError):
            return error
        status = getattr(error, "status", None)
        message = self._scrubbed(_message(error))
        if status == 401:
            return InputError(
                f"{self.host}: the credentials are not accepted (401): the token or cookie is missing or has expired; "
                "get a new one and set KFP_TOKEN, KFP_COOKIE or KFP_SERVICE_ACCOUNT_TOKEN"
            )
        if "namespace" in message.lower() and ("not found" in message.lower() or status == 404):
            return InputError(
                f"namespace {self.pod_namespace!r} is missing at {self.host}: set KFP_NAMESPACE to your profile's "
                "namespace, or create it"
            )
        if status == 403:
            return InputError(
                f"{self.host}: not allowed (403) in namespace {self.pod_namespace!r}: it does not exist or is not "
                f"yours; check KFP_NAMESPACE and your role there ({message})"
            )
        if status is not None and status != 0:
            return PipelineError(f"{self.host}: Kubeflow Pipelines refused ({status}): {message}")
        return PipelineError(
            f"{self.host}: Kubeflow Pipelines is not reachable ({message}): check KFP_HOST and that the cluster or its "
            "port-forward is up"
        )

    def _is_multi_user(self, answer: bytes) -> bool:
        try:
            health = json.loads(answer)
            # in the API server's own words, and in those of Kubeflow's UI, which people's addresses lead to
            return any(health.get(name) for name in ("multi_user", "multiUser", "apiServerMultiUser"))
        except (ValueError, AttributeError) as error:
            raise self._no_api() from error

    def _no_api(self) -> PipelineError:
        return PipelineError(
            f"{self.host}: this is not the API of Kubeflow Pipelines (a login page, maybe): check KFP_HOST, "
            "and set KFP_COOKIE or KFP_TOKEN if it asks for a sign-in"
        )

    def _scrubbed(self, text: str) -> str:
        for secret in (self.token, self.cookie):
            if secret:
                text = text.replace(secret, "***")
        return text


def _bound_requests(rest: Any) -> None:
    """Give every request of kfp's HTTP client a time limit: by itself it waits for ever for a server that is silent."""
    request = rest.request

    def bounded(*arguments: Any, **options: Any) -> Any:
        return request(*arguments, **{**options, "_request_timeout": TIMEOUT_SECONDS})

    rest.request = bounded
    rest.pool_manager.connection_pool_kw["retries"] = 1


def _message(error: Exception) -> str:
    """Take the backend's own sentence out of an error; headers, which may hold a cookie, are never part of it."""
    body = getattr(error, "body", None)
    if body:
        try:
            answer = json.loads(body)
            text = str(answer.get("message") or answer.get("error") or body)
        except (ValueError, AttributeError):
            text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    else:
        text = str(getattr(error, "reason", None) or error or type(error).__name__)
    return " ".join(text.split())[:300]
