"""The server over real sockets, without Ray: what it answers, whom it lets in, and how much it takes."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import uvicorn
from starlette.requests import Request

from tests.toys import BrightnessConfig, BrightnessEncoder
from vlmrl.errors import UserError
from vlmrl.reward_models.clip import ClipReward
from vlmrl.rows import Rows
from vlmrl.serving.client import RewardClient
from vlmrl.serving.local import LocalConfig
from vlmrl.serving.process import ProcessConfig
from vlmrl.serving.uploads import UploadLimits
from vlmrl.workflows.config.scene import Choice
from vlmrl.workflows.config.serve import ServeConfig, serve_settings
from vlmrl.workflows.serve.http import RewardApi
from vlmrl.workflows.serve.rewarder import Rewarder

TOKEN = "correct-horse-battery"
SETTINGS = ServeConfig(
    encoder=Choice("brightness", BrightnessConfig()),
    scorer=Choice("local", LocalConfig(batch_size=4, deduplicate=64)),
    rewards=("clip", "clip_contrastive"),
    host="127.0.0.1",
    port=8265,
    token_file=None,
    limits=UploadLimits(max_megabytes=1, max_frames=64),
    replicas=1,
    num_cpus=1,
    num_gpus=None,
    address=None,
    max_requests=8,
    max_queued_requests=8,
    kept_prompts=2,
    device="cpu",
    threads=0,
)
FRAMES = np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in (0, 50, 100, 200, 250)])


@contextmanager
def serving(settings: ServeConfig = SETTINGS, token: str | None = None) -> Iterator[tuple[str, Rewarder]]:
    """Serve on a free port; yields the address."""
    rewarder = Rewarder(settings, "cpu")
    api = RewardApi(rewarder, token)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        response = await api.respond(Request(scope, receive))
        await response(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", rewarder
    finally:
        server.should_exit = True
        thread.join()
        rewarder.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as (address, _):
        yield address


def ask(url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def form(**fields: bytes | tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    body = b""
    for name, value in fields.items():
        file, content = value if isinstance(value, tuple) else (None, value)
        named = f'; filename="{file}"' if file else ""
        body += f'--edge\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"
    return body + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


def expected(frames: np.ndarray, **options: Any) -> np.ndarray:
    encoder = BrightnessEncoder()
    rows = Rows(np.arange(len(frames)), {"embeddings": {"clip": encoder.encode_images(frames)}})
    return ClipReward("a bright room", encoder=encoder, **options)(rows)


def test_pictures_and_words_in_rewards_out(url: str) -> None:
    client = RewardClient(url)
    np.testing.assert_array_equal(client.rewards(FRAMES, "a bright room"), expected(FRAMES))
    projected = client.rewards(FRAMES, "a bright room", baseline="a room", options={"alpha": 0.5})
    np.testing.assert_array_equal(projected, expected(FRAMES, baseline="a room", alpha=0.5))
    contrast = client.rewards(FRAMES, "a bright room", negatives=["a room"], reward="clip_contrastive")
    assert (np.diff(contrast) > 0).all()


def test_files_of_every_kind_and_several_cameras(url: str, tmp_path: Path) -> None:
    client = RewardClient(url)
    for i, frame in enumerate(FRAMES):
        imageio.imwrite(tmp_path / f"{i}.png", frame)
    paths = [tmp_path / f"{i}.png" for i in range(len(FRAMES))]
    np.testing.assert_array_equal(client.rewards(paths, "a bright room"), expected(FRAMES))
    film = tmp_path / 'a "film".mp4'
    imageio.mimwrite(film, list(FRAMES.repeat(2, axis=1).repeat(2, axis=2)), macro_block_size=2)
    np.testing.assert_allclose(client.rewards(film, "a bright room"), expected(FRAMES), atol=0.05)
    both = client.rewards({"front": FRAMES, "side": paths[::-1]}, "a bright room", options={"views": "min"})
    np.testing.assert_array_equal(both, np.minimum(expected(FRAMES), expected(FRAMES[::-1])))


def test_it_says_what_it_offers(url: str) -> None:
    assert ask(url, "GET", "/health") == (200, {"status": "ok"})
    offered = RewardClient(url).models()
    assert offered["encoder"] == "brightness"
    assert offered["rewards"]["clip"] == {"alpha": 0.0, "views": "mean"}
    assert offered["limits"]["max_frames"] == 64


def test_another_prompt_over_known_frames_costs_no_pass() -> None:
    with serving() as (address, rewarder):
        encoder = rewarder._service.encoder
        assert isinstance(encoder, BrightnessEncoder)
        client = RewardClient(address)
        client.rewards(FRAMES, "a bright room")
        before = sum(encoder.batches)
        assert before == len(FRAMES)
        for words in ("a dark room", "a brighter room", "a room"):
            client.rewards(FRAMES, words)
        assert sum(encoder.batches) == before
        assert len(rewarder._prompts) == SETTINGS.kept_prompts  # the oldest are forgotten


def test_requests_that_come_together_are_encoded_together() -> None:
    settings = replace(
        SETTINGS,
        encoder=Choice("brightness", BrightnessConfig(seconds=0.3)),
        scorer=Choice("local", LocalConfig(batch_size=64)),
    )
    with serving(settings) as (address, rewarder):
        encoder = rewarder._service.encoder
        assert isinstance(encoder, BrightnessEncoder)
        client = RewardClient(address)
        clips = [np.full((2, 8, 8, 3), value, dtype=np.uint8) for value in range(0, 240, 30)]
        with ThreadPoolExecutor(len(clips)) as pool:
            got = list(pool.map(lambda clip: client.rewards(clip, "a bright room"), clips))
        assert sum(encoder.batches) == 2 * len(clips)
        assert len(encoder.batches) < len(clips)
    for clip, rewards in zip(clips, got, strict=True):
        np.testing.assert_array_equal(rewards, expected(clip))


def test_only_who_shows_the_token_is_let_in() -> None:
    with serving(token=TOKEN) as (address, _):
        np.testing.assert_array_equal(RewardClient(address, TOKEN).rewards(FRAMES, "a bright room"), expected(FRAMES))
        assert ask(address, "GET", "/health")[0] == 200
        for shown in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}, {"Token": TOKEN}):
            assert ask(address, "GET", "/v1/models", headers=shown)[0] == 401
        status, answer = ask(address, "POST", "/v1/rewards", b"x" * 10, {"Content-Type": "multipart/form-data"})
        assert status == 401
        assert "Authorization: Bearer <token>" in answer["error"]
        with pytest.raises(UserError, match=r"refuses \(401\): This server wants its token"):
            RewardClient(address, "something else").models()


def test_without_a_token_no_web_page_gets_in_under_a_name_of_its_own(url: str) -> None:
    assert ask(url, "GET", "/v1/models", headers={"Host": "evil.example"})[0] == 403
    assert ask(url, "GET", "/v1/models", headers={"Host": "localhost:1"})[0] == 200


REQUEST = json.dumps({"goal": "a bright room"}).encode()


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({}, 422, "goal is missing"),
        ({"goal": "x", "baselin": "y"}, 422, "Unknown key 'baselin'. Did you mean 'baseline'?"),
        ({"goal": ""}, 422, "goal holds an empty sentence"),
        ({"goal": []}, 422, "The goal is empty"),
        ({"goal": "x", "reward": "ground_truth"}, 422, "Available: clip, clip_contrastive"),
        ({"goal": "x", "options": {"alpha": 2}}, 422, "options.alpha is 2; it must be a number, 0 to 1"),
        ({"goal": "x", "options": {"alpha": 0.5}}, 422, "give a baseline"),
        ({"goal": "x", "env": "nowhere"}, 422, "not there"),
        ({"goal": "x" * 1001}, 413, "A sentence has 1001 characters; at most 1000"),
        ({"goal": ["x"] * 33}, 413, "There are 33 sentences; at most 32"),
        ([], 400, "must be a JSON object"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_a_sentence(url: str, asked: Any, status: int, said: str) -> None:
    body, headers = form(request=json.dumps(asked).encode(), clip=("a.npy", _npy(FRAMES)))
    got, answer = ask(url, "POST", "/v1/rewards", body, headers)
    assert (got, said in answer["error"]) == (status, True), answer


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"request": b"{"}, 400, "The field 'request' is no JSON"),
        ({"request": b"[" * 100_000}, 400, "The field 'request' is no JSON"),
        ({"clip": ("a.mp4", b"nonsense")}, 400, "The field 'request' is missing"),
        ({"request": REQUEST}, 400, "There are no pictures"),
        ({"request": REQUEST, "clip": ("a.mp4", b"nonsense")}, 415, "no kind of file that is read here"),
        ({"request": REQUEST, "other": b"x"}, 400, "Too many fields"),
        ({"request": REQUEST, "clip": ("a.npy", b"\x93NUMPY" + bytes(2 << 20))}, 413, "longer than 1 MiB"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(url: str, fields: Any, status: int, said: str) -> None:
    body, headers = form(**fields)
    got, answer = ask(url, "POST", "/v1/rewards", body, headers)
    assert (got, said in answer["error"]) == (status, True), answer


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(url: str) -> None:
    body, headers = form(request=REQUEST, clip=("a.npy", bytes(3 << 20)))
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for start in range(0, len(body), 1 << 16):
            sent += 1
            yield body[start : start + (1 << 16)]

    status, answer = ask(url, "POST", "/v1/rewards", chunks(), headers)
    assert (status, "longer than 1 MiB" in answer["error"]) == (413, True)


def test_other_paths_methods_and_types_are_refused(url: str) -> None:
    assert ask(url, "GET", "/v1/nothing")[0] == 404
    assert ask(url, "GET", "/v1/rewards")[0] == 405
    assert ask(url, "POST", "/v1/rewards", b"{}", {"Content-Type": "application/json"})[0] == 415
    assert ask(url, "POST", "/v1/rewards", b"--", {"Content-Type": "multipart/form-data"})[0] == 400


def test_cameras_that_bring_different_numbers_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="the same number of pictures, got {'front': 5, 'side': 4}"):
        RewardClient(url).rewards({"front": FRAMES, "side": FRAMES[1:]}, "a bright room")


def test_words_that_the_encoder_warns_of_are_in_the_answer(url: str) -> None:
    body, headers = form(request=b'{"goal": "warn me"}', clip=("a.npy", _npy(FRAMES)))
    assert ask(url, "POST", "/v1/rewards", body, headers)[1]["warnings"] == ["a word of warning"]


def test_numbers_that_are_not_finite_are_an_error_that_names_model_prompt_and_picture() -> None:
    settings = replace(SETTINGS, encoder=Choice("brightness", BrightnessConfig(nan_above=220)))
    with serving(settings) as (address, _):
        with pytest.raises(
            UserError, match=r"encoder brightness and goal \['a bright room'\] is not finite at picture 4"
        ):
            RewardClient(address).rewards(FRAMES, "a bright room")
        assert len(RewardClient(address).rewards(FRAMES[:4], "a bright room")) == 4


def test_an_encoder_that_is_gone_is_said_and_shows_in_the_health() -> None:
    settings = replace(
        SETTINGS,
        encoder=Choice("brightness", BrightnessConfig(seconds=30)),
        scorer=Choice("process", ProcessConfig(batch_size=4, timeout_s=0.2, restarts=0)),
    )
    with serving(settings) as (address, _):
        with pytest.raises(UserError, match=r"refuses \(503\): The encoder is gone"):
            RewardClient(address).rewards(FRAMES, "a bright room")
        assert ask(address, "GET", "/health")[0] == 503


def test_the_client_says_what_is_wrong_with_an_address() -> None:
    with pytest.raises(UserError, match="begins with http:// or https://"):
        RewardClient("127.0.0.1:8265")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UserError, match=f"http://127.0.0.1:{port} does not answer"):
        RewardClient(f"http://127.0.0.1:{port}").models()


def test_a_fault_of_the_server_is_not_told_to_strangers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Rewarder) -> dict[str, Any]:
        await asyncio.sleep(0)
        raise RuntimeError("a secret")

    monkeypatch.setattr(Rewarder, "about", fails)
    assert ask(url, "GET", "/v1/models") == (500, {"error": "The server has a fault; its log says which."})


def _npy(frames: np.ndarray) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, frames)
    return stream.getvalue()


def test_a_server_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    from vlmrl.commands import compose, plain

    values = plain(compose("serve", []))
    assert serve_settings(values).host == "127.0.0.1"
    for host in ("0.0.0.0", "::", "192.0.2.1", "my-machine"):
        with pytest.raises(UserError, match="they must show a token"):
            serve_settings(values | {"host": host})
    file = tmp_path / "token.txt"
    with pytest.raises(UserError, match="cannot be read"):
        serve_settings(values | {"token_file": str(file)})
    file.write_text("short\n")
    with pytest.raises(UserError, match="at least 16 characters"):
        serve_settings(values | {"token_file": str(file)})
    file.write_text(TOKEN + "\n")
    assert serve_settings(values | {"host": "0.0.0.0", "token_file": str(file)}).token() == TOKEN
    with pytest.raises(UserError, match="replicas are Ray's already"):
        serve_settings(plain(compose("serve", ["scorer=ray"])))
    for blind in ("ground_truth", "oni"):
        with pytest.raises(UserError, match=f"'{blind}' looks at no pictures"):
            serve_settings(values | {"rewards": [blind]})
    with pytest.raises(UserError, match="max_frames is 0; it must be a whole number, at least 1"):
        serve_settings(values | {"max_frames": 0})
