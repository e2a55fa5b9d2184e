"""Settings of `vlmrl.serve`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from vlmrl.errors import UserError
from vlmrl.reward_models import REWARDS
from vlmrl.serving.uploads import UploadLimits
from vlmrl.typed import Count, Natural, Range, typed
from vlmrl.workflows.config.scene import Choice, check_device, chosen, import_plugins

LEAST_TOKEN = 16  # characters; shorter ones can be guessed


@dataclass(frozen=True)
class ServeConfig:
    """Settings of `vlmrl.serve`; `configs/serve.yaml` says what each key means.

    Raises:
        UserError: The settings contradict each other, or would open the server to everybody.
    """

    encoder: Choice
    scorer: Choice
    rewards: tuple[str, ...]
    host: str
    port: Annotated[int, Range(1, 65535)]
    token_file: str | None
    limits: UploadLimits
    replicas: Count
    num_cpus: Annotated[float, Range(0)]
    num_gpus: Annotated[float, Range(0)] | None
    address: str | None
    max_requests: Count
    max_queued_requests: Natural
    kept_prompts: Count
    device: str
    threads: Natural
    plugins: tuple[str, ...] = ()
    run_dir: str = ""  # every command is told its folder; a server writes nothing

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.scorer.name == "ray":
            raise UserError(
                "scorer=ray: the server's replicas are Ray's already. Say how many with replicas=, and take "
                "scorer=local, thread or process for what runs in each."
            )
        if not self.rewards:
            raise UserError(f"rewards is empty; name what may be asked for, of {', '.join(REWARDS)}.")
        for name in self.rewards:
            config = REWARDS.load(name)
            # A property where settings decide: ask the default ones.
            if not (config.uses_encoder if isinstance(config.uses_encoder, bool) else config().uses_encoder):
                raise UserError(f"rewards: '{name}' looks at no pictures, and pictures are all that a request brings.")
        if self.token_file is None and not is_loopback(self.host):
            raise UserError(
                f"host={self.host} lets other machines in, so they must show a token: write a long random one into a "
                "file that only you can read, and give it with token_file=<file>. Or stay with host=127.0.0.1."
            )
        self.token()

    def token(self) -> str | None:
        """Return what clients must say; None where there is no need.

        Raises:
            UserError: The file cannot be read, or its token is too short or has spaces in it.
        """
        if self.token_file is None:
            return None
        path = Path(self.token_file)
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"token_file: '{path}' cannot be read as a line of ASCII text ({error}). Make one: python -c "
                f"'import secrets; print(secrets.token_urlsafe(32))' > {path}"
            ) from error
        if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
            raise UserError(
                f"token_file: '{path}' must hold one word of at least {LEAST_TOKEN} characters. Make one: python -c "
                f"'import secrets; print(secrets.token_urlsafe(32))' > {path}"
            )
        return token


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a host: "localhost", 127.0.0.0/8 or ::1. Other names may lead anywhere."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def serve_settings(values: Mapping[str, Any]) -> ServeConfig:
    """Check the settings of `vlmrl.serve`.

    Args:
        values: Plain values in the form of `configs/serve.yaml`.

    Raises:
        UserError: A key, type or value is wrong, or they contradict each other.
    """
    import_plugins(values.get("plugins"))
    limits = {entry.name: values[entry.name] for entry in fields(UploadLimits) if entry.name in values}
    own = {key: value for key, value in values.items() if key not in limits}
    return typed(ServeConfig, {**own, **chosen(values), "limits": typed(UploadLimits, limits)})
