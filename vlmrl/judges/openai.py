"""Any endpoint that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Ollama, gateways."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError, did_you_mean, require
from vlmrl.judges.base import Answer, Message, TextQuestion
from vlmrl.judges.chat import ChatJudge, ChatSettings
from vlmrl.judges.prompts import Unreadable, read_choice, short
from vlmrl.typed import Count, Natural, Positive

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LOG = logging.getLogger(__name__)
CHECK_TIMEOUT = 15.0  # seconds that an endpoint has at start to say which models it has
# Fields that an endpoint may do without, by the words with which it refuses them.
OPTIONAL: dict[tuple[str, ...], set[str]] = {
    ("response_format", "json_schema"): {"response_format"},
    ("logprobs",): {"logprobs", "top_logprobs"},
    ("max_completion_tokens",): {"max_tokens"},
    ("temperature",): {"temperature"},
    ("seed",): {"seed"},
}
T = TypeVar("T")

ChoiceWay = Literal["words", "structured_outputs", "guided_choice", "grammar"]


@dataclass(frozen=True, kw_only=True)
class OpenAIConfig(ChatSettings):
    """Settings of `judge=openai`.

    Attributes:
        model: Which model, as the endpoint calls it.
        base_url: Address of the endpoint up to and with its version; None takes OpenAI's own.
        api_key_env: Environment variable that holds the key; the key itself is written down nowhere.
        detail: How closely OpenAI's models look at a picture.
        structured: Hold the model to the JSON schema of a critique, where the endpoint can.
        choices: How the endpoint is held to one of several words: by the prompt alone, by vLLM's `structured_outputs`
            (in older releases `guided_choice`), or by llama.cpp's `grammar`.
        logprobs: Ask how likely each word was, for confidences.
        extra_body: Further fields of every request, as the endpoint defines them.
        concurrency: Requests that are under way at the same time.
        timeout_s: Seconds after which a request counts as failed.
        deadline_s: Seconds after which no further retry is waited for.
        retries: How often a request is made again that timed out, was limited (429), or met a fault of the server;
            after the time that the endpoint asks for, else after one that doubles.
        check: Ask the endpoint at start whether it is there and knows the key.
    """

    model: str = ""
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    detail: Literal["auto", "low", "high"] = "auto"
    structured: bool = True
    choices: ChoiceWay = "words"
    logprobs: bool = True
    extra_body: dict[str, Any] = field(default_factory=dict)
    concurrency: Count = 4
    timeout_s: Positive = 60.0
    deadline_s: Positive = 180.0
    retries: Natural = 4
    check: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise UserError(
                "judge=openai needs the name of a model, as the endpoint calls it: judge.model=gpt-4o-mini."
            )
        if self.deadline_s < self.timeout_s:
            raise UserError(
                f"judge.deadline_s is {self.deadline_s:g}, less than judge.timeout_s, {self.timeout_s:g}: no request "
                "could take its time. Make it several times as long."
            )

    def build(self, encoder: Encoder | None = None, device: str = "cpu") -> ChatJudge:
        """See `JudgeSettings.build`.

        Raises:
            UserError: The client is not installed, there is no key, or the endpoint is not there or refuses the key.
        """
        return ChatJudge("openai", OpenAIModel(self), self.asked, self.swap, self.concurrency)


class OpenAIModel:
    """A model behind an endpoint; see this module and `base.ChatModel`. May be used by several threads.

    Args:
        config: Which one, and how it is asked.

    Raises:
        UserError: See `OpenAIConfig.build`.
    """

    def __init__(self, config: OpenAIConfig):
        library = require("openai", extra="judges")
        key = os.environ.get(config.api_key_env)
        if not key and config.base_url is None:
            raise UserError(
                f"judge=openai: the environment variable {config.api_key_env} is not set. Put your key there, or name "
                "another variable (judge.api_key_env) or endpoint (judge.base_url=http://127.0.0.1:8000/v1)."
            )
        self.name = config.model
        # The address is not part of it: the same model at another endpoint is asked nothing twice.
        self.fingerprint = repr((config.detail, config.structured, config.choices, sorted(config.extra_body.items())))
        self._config = config
        self._without: set[str] = set()  # fields of a request that are left out
        if not config.structured:
            self._without |= {"response_format"}
        if not config.logprobs:
            self._without |= {"logprobs", "top_logprobs"}
        self._under_way: set[Future[Any]] = set()
        self._closed = False
        self._closing = threading.Lock()  # of the two above
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai", daemon=True)
        self._thread.start()
        self._client: AsyncOpenAI = library.AsyncOpenAI(
            # An endpoint of one's own needs no key, but the client wants one.
            api_key=key or "none",
            base_url=config.base_url,
            timeout=config.timeout_s,
            max_retries=config.retries,
        )
        if config.check:
            self._check()

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """See `base.ChatModel.cost`."""
        return self._config.price(prompt_tokens, completion_tokens)

    def complete(self, question: TextQuestion) -> Answer:
        """See `base.ChatModel.complete`. An endpoint that gives fewer than n answers is asked again for the rest."""
        start = time.monotonic()
        answers: list[Answer] = []
        while (have := sum(len(answer.texts) for answer in answers)) < question.n:
            answer = self._once(question, question.n - have, len(answers))
            answers.append(answer)
            if answer.is_error:
                break
        last = answers[-1]
        return Answer(
            "error" if last.is_error else None,
            texts=tuple(text for answer in answers for text in answer.texts)[: question.n],
            model=last.model,
            raw=last.raw,
            logprobs=answers[0].logprobs,
            calls=sum(answer.calls for answer in answers),
            prompt_tokens=sum(answer.prompt_tokens for answer in answers),
            completion_tokens=sum(answer.completion_tokens for answer in answers),
            cost=sum(answer.cost for answer in answers),
            seconds=time.monotonic() - start,
            error=last.error,
        )

    def close(self) -> None:
        """Cancel requests that other threads have under way, and close the connections; more cannot be begun."""
        with self._closing:
            self._closed = True
            under_way = tuple(self._under_way)
        for request in under_way:
            request.cancel()
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(CHECK_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CHECK_TIMEOUT)

    def _check(self) -> None:
        """See that the endpoint is there and takes the key; not every one lists its models."""
        import openai

        try:
            listed = [model.id for model in self._run(self._list(), CHECK_TIMEOUT)]
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(
                f"judge=openai: the endpoint refuses the key in {self._config.api_key_env}: {short(error.message)}."
            ) from error
        except (openai.APIConnectionError, TimeoutError) as error:
            raise UserError(
                f"judge=openai: nothing answers at {self._client.base_url} ({_cause(error)}). Start the endpoint, or "
                "correct judge.base_url; judge.check=false goes on without."
            ) from error
        except openai.OpenAIError as error:
            LOG.warning("The endpoint %s does not list its models: %s", self._client.base_url, short(str(error)))
            return
        if listed and self.name not in listed:
            # Some endpoints know a model by more names than they list.
            LOG.warning(
                "The endpoint does not list a model '%s'.%s It lists: %s",
                self.name,
                did_you_mean(self.name, listed),
                ", ".join(listed[:20]),
            )

    async def _list(self) -> list[Any]:
        page = await self._client.with_options(max_retries=0).models.list()
        data = getattr(page, "data", None)
        return [model for model in data if hasattr(model, "id")] if isinstance(data, list) else []

    def _run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Do work on the loop's thread, for so many seconds at most, also where a byte comes now and then.

        Raises:
            CancelledError: The model was closed before or meanwhile.
        """
        with self._closing:
            if self._closed:  # the loop would never come to it
                work.close()
                raise CancelledError
            request = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self._loop)
            self._under_way.add(request)
        try:
            return request.result()
        finally:
            with self._closing:
                self._under_way.discard(request)

    def _once(self, question: TextQuestion, n: int, sample: int) -> Answer:
        """Make one request, which the client repeats where that makes sense."""
        import openai

        start = time.monotonic()
        try:
            completion, retried = self._run(self._request(question, n, sample), self._config.deadline_s)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:  # servers made with FastAPI say 422
            if self._do_without(str(error)):
                return self._once(question, n, sample)
            return self._failed(start, f"{type(error).__name__}: {error.message}")
        except TimeoutError:
            return self._failed(start, f"no reply within {self._config.deadline_s:g} s, retries included")
        except openai.OpenAIError as error:
            return self._failed(start, f"{type(error).__name__}: {_cause(error)}")
        except ValueError as error:  # a body that is no JSON
            return self._failed(start, f"a reply that is no chat completion: {error}")
        return self._read(question, completion, start, 1 + retried)

    async def _request(self, question: TextQuestion, n: int, sample: int) -> tuple[Any, int]:
        """Return the reply, and how often the client had to ask again for it."""
        options: dict[str, Any] = {"max_tokens": question.max_tokens, "temperature": question.temperature, "n": n}
        if question.seed is not None:
            options["seed"] = question.seed + sample  # the same seed would give the same sample again
        if question.choices:
            options |= {"logprobs": True, "top_logprobs": 20}  # the most that OpenAI gives
        if question.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": question.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        options = {name: value for name, value in options.items() if name not in self._without}
        if "max_tokens" in self._without:
            options["max_completion_tokens"] = question.max_tokens  # what models that think want it to be called
        messages: Any = [self._message(message) for message in question.messages]
        raw = await self._client.chat.completions.with_raw_response.create(
            model=self.name,
            messages=messages,
            extra_body=self._body(question),
            **options,
        )
        return raw.parse(), raw.retries_taken

    def _body(self, question: TextQuestion) -> dict[str, Any]:
        """Return the fields of a request that are not OpenAI's own."""
        body = dict(self._config.extra_body)
        choices = list(question.choices)
        if choices and self._config.choices == "structured_outputs":
            body["structured_outputs"] = {"choice": choices}
        elif choices and self._config.choices == "guided_choice":
            body["guided_choice"] = choices
        elif choices and self._config.choices == "grammar":
            quoted = ('"' + choice.replace("\\", "\\\\").replace('"', '\\"') + '"' for choice in choices)
            body["grammar"] = "root ::= " + " | ".join(quoted)
        return body

    def _do_without(self, complaint: str) -> bool:
        """Leave out what an endpoint says it cannot do, from now on; whether there was anything to leave out."""
        for words, names in OPTIONAL.items():
            if any(word in complaint for word in words) and not names <= self._without:
                LOG.warning("%s takes no %s; asked without: %s", self.name, sorted(names)[0], short(complaint))
                self._without |= names
                return True
        return False

    def _message(self, message: Message) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        for item in message.content:
            if isinstance(item, str):
                content.append({"type": "text", "text": item})
            else:
                url = {"url": data_url(item), "detail": self._config.detail}
                content.append({"type": "image_url", "image_url": url})
        if all(part["type"] == "text" for part in content):  # some endpoints take lists only with pictures in them
            return {"role": message.role, "content": "\n".join(part["text"] for part in content)}
        return {"role": message.role, "content": content}

    def _read(self, question: TextQuestion, completion: Any, start: float, calls: int) -> Answer:
        """Make an answer of a reply, however it looks: what a server sends is not checked by the client."""
        found = getattr(completion, "choices", None)
        if not isinstance(found, list) or not found:
            return self._failed(start, f"a reply that is no chat completion: {short(str(completion))}", calls)
        usage = getattr(completion, "usage", None)
        prompt, written = (_tokens(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        taken: dict[str, Any] = {
            "model": str(getattr(completion, "model", None) or self.name),
            "calls": calls,
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "cost": self.cost(prompt, written),
            "seconds": time.monotonic() - start,
        }
        texts = []
        for choice in found:
            message = getattr(choice, "message", None)
            text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
            if not isinstance(text, str) or not text.strip():
                reason = f"refused: {short(str(refusal))}" if refusal else f"no text ({choice!r:.120})"
                return Answer("error", raw=reason, error=reason, **taken)  # a reply all the same
            texts.append(text)
        likely = first_token(found[0], question.choices) if question.choices else None
        if question.choices:
            try:
                texts = [read_choice(text, question.choices) for text in texts]
            except Unreadable as error:
                return Answer("error", raw=texts[0], error=f"unreadable: {error}", **taken)
        return Answer(None, texts=tuple(texts), raw=texts[0], logprobs=likely, **taken)

    def _failed(self, start: float, why: str, calls: int = 1) -> Answer:
        return Answer("error", model=self.name, calls=calls, seconds=time.monotonic() - start, error=why)


def data_url(picture: np.ndarray) -> str:
    """Return a picture, (H, W, 3) uint8 RGB, as the data URL of a PNG."""
    import cv2

    done, data = cv2.imencode(".png", picture[:, :, ::-1])
    assert done
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def first_token(choice: Any, choices: tuple[str, ...]) -> dict[str, float] | None:
    """Return {choice: logprob of the first token it can start with}, as far as a reply tells.

    Tokens that could start several choices are left out; a choice that several tokens start ("1", " 1") has the sum of
    their probabilities.
    """
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not isinstance(content, list) or not content:
        return None
    found: dict[str, float] = {}
    for entry in getattr(content[0], "top_logprobs", None) or []:
        token, logprob = str(getattr(entry, "token", "")).strip().lower(), getattr(entry, "logprob", None)
        starts = [name for name in choices if token and name.lower().startswith(token)]
        if len(starts) == 1 and isinstance(logprob, int | float):
            found[starts[0]] = float(np.logaddexp(found.get(starts[0], -np.inf), logprob))
    return found or None


def _tokens(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value >= 0 else 0


def _cause(error: BaseException) -> str:
    """Say what went wrong; the client's own message is often only that there was an error."""
    parts = [str(error), str(error.__cause__)] if error.__cause__ is not None else [str(error)]
    return "; ".join(dict.fromkeys(short(part) for part in parts if part)) or type(error).__name__
