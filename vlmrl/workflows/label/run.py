"""Serves the page over the answer store of a run."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import quote

from vlmrl.errors import UserError, require
from vlmrl.judges.exchange import export_parquet
from vlmrl.judges.store import AnswerStore
from vlmrl.workflows.config.label import LabelConfig
from vlmrl.workflows.label.desk import LabelDesk
from vlmrl.workflows.run_folder import find


def label(settings: LabelConfig) -> None:
    """Serve the page until Ctrl-C, or write the store into a file.

    Args:
        settings: What to label, and for whom.

    Raises:
        UserError: There is nothing to label, an extra is missing, the token cannot be read, or the port is taken.
    """
    if settings.export is not None:
        store = AnswerStore(store_of(settings), create=False)
        print(f"{export_parquet(store, settings.export)} questions written to {settings.export}.")
        store.close()
        return
    uvicorn = require("uvicorn", extra="label")
    require("fastapi", extra="label")
    from vlmrl.workflows.label.http import make_app

    token = read_token(settings.token_file)
    path = store_of(settings)
    store = AnswerStore(path, create=False)
    desk = LabelDesk(store, settings.questions == "all", settings.expert)
    listener = listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    app = make_app(desk, settings.fps, token, settings.host)
    print(f"Answers go into {path}; {desk.progress('').left} comparisons wait.")
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"Open http://{shown}:{port}/" + (f"?token={quote(token)}" if token else "") + "  (Ctrl-C ends)", flush=True)
    try:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        server.run(sockets=[listener])
    finally:
        store.close()


def store_of(settings: LabelConfig) -> Path:
    """Return the answer store that the settings mean.

    Raises:
        UserError: The run asks nobody, or has not asked yet.
    """
    if settings.store is not None:
        return Path(settings.store)
    assert settings.run is not None
    folder = find(settings.run, make="vlmrl.train env=cartpole agent=dqn reward=vlm_preference judge=human")
    config = folder.read_config("train", "search")
    # A search has one judge that writes programs and another one that looks at films.
    judge = config.get("rater" if config.get("feedback") == "clips" else "judge") or {}
    path = Path(judge.get("store") or folder.path / "answers.sqlite")
    if not path.is_file():
        name = judge.get("name")
        asks = name in ("human", "hybrid")
        why = "its questions come with its first round, which is not there yet" if asks else f"its judge is {name}"
        raise UserError(f"The run '{folder.path}' has no questions for people; {why}. People are asked by judge=human.")
    return path


def read_token(file: str | None) -> str:
    """Return the word in a file, or an empty string without one.

    Raises:
        UserError: The file is not there or too short to keep anybody out.
    """
    if file is None:
        return ""
    try:
        token = Path(file).read_text().strip()
    except OSError as error:
        raise UserError(f"token_file: '{file}' cannot be read ({error.strerror}).") from error
    if len(token) < 8:
        raise UserError(f"token_file: the word in '{file}' has {len(token)} characters; take at least 8.")
    return token


def listen(host: str, port: int) -> socket.socket:
    """Open the port, before anything is promised.

    Raises:
        UserError: It is taken, or is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(f"host={host} port={port} cannot be opened ({error.strerror}). Take another port.") from error
    return listener
