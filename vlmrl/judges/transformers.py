"""A local image-text-to-text model of Hugging Face transformers: no endpoint, but the same store and budget."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError, require
from vlmrl.judges.base import Answer, TextQuestion
from vlmrl.judges.chat import ChatJudge, ChatSettings
from vlmrl.judges.prompts import short


@dataclass(frozen=True, kw_only=True)
class TransformersConfig(ChatSettings):
    """Settings of `judge=transformers`.

    Attributes:
        model: A folder with a model and its processor, or the name of one in the Hub's cache.
        revision: Commit, tag or branch of a model of the Hub; None takes what is there.
        dtype: Numbers that it computes with; "auto" takes those that its weights are kept in.
        device: "auto" takes the run's device; else a torch device.
        download: Whether a model that is not in the cache may be downloaded.
    """

    model: str = "HuggingFaceTB/SmolVLM-500M-Instruct"
    revision: str | None = None
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"
    download: bool = False

    def build(self, encoder: Encoder | None = None, device: str = "cpu") -> ChatJudge:
        """See `JudgeSettings.build`.

        Raises:
            UserError: transformers is not installed, or the model cannot be had or answers no questions about pictures.
        """
        model = TransformersModel(self, device if self.device == "auto" else self.device)
        return ChatJudge("transformers", model, self.asked, self.swap)


class TransformersModel:
    """See this module and `base.ChatModel`. Answers one question at a time.

    Args:
        config: Which model.
        device: Torch device.

    Raises:
        UserError: See `TransformersConfig.build`.
    """

    def __init__(self, config: TransformersConfig, device: str = "cpu"):
        import torch

        from vlmrl.encoders.torchvision_ops import prepare_torchvision

        prepare_torchvision()
        library = require("transformers", extra="judges")
        types = {"auto": "auto", "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        where = {"revision": config.revision, "local_files_only": not config.download}
        try:
            self._processor = library.AutoProcessor.from_pretrained(config.model, **where)
            self._model = library.AutoModelForImageTextToText.from_pretrained(
                config.model, dtype=types[config.dtype], **where
            ).to(device)
        except (OSError, ValueError, KeyError) as error:  # what transformers raises for a model that is not to be had
            hint = (
                "" if Path(config.model).is_dir() or config.download else " judge.download=true lets it be downloaded."
            )
            raise UserError(
                f"judge=transformers: '{config.model}' cannot be loaded as a model that answers questions on pictures: "
                f"{short(str(error))}.{hint}"
            ) from error
        if getattr(self._processor, "chat_template", None) is None:
            raise UserError(
                f"judge=transformers: '{config.model}' has no chat template, so it cannot be asked. Take a model that "
                "was tuned to instructions."
            )
        self._model.eval().requires_grad_(False)
        self._config = config
        self._lock = threading.Lock()
        self.name = config.model
        commit = getattr(self._model.config, "_commit_hash", None)
        self.fingerprint = f"{commit or config.revision or _files(Path(config.model))} {config.dtype}"

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """See `base.ChatModel.cost`."""
        return self._config.price(prompt_tokens, completion_tokens)

    def complete(self, question: TextQuestion) -> Answer:
        """See `base.ChatModel.complete`."""
        import torch

        start = time.monotonic()
        with self._lock, torch.inference_mode():
            try:
                inputs = self._inputs(question)
                texts, likely, written = (
                    self._choose(question, inputs) if question.choices else self._write(question, inputs)
                )
            except (RuntimeError, ValueError, IndexError) as error:  # out of memory, or a prompt the model cannot take
                return Answer(
                    "error",
                    model=self.name,
                    calls=1,
                    seconds=time.monotonic() - start,
                    error=f"{type(error).__name__}: {short(str(error))}",
                )
        prompt = int(inputs["input_ids"].shape[1])
        return Answer(
            None,
            texts=tuple(texts),
            model=self.name,
            raw=texts[0],
            logprobs=likely,
            calls=1,
            prompt_tokens=prompt,
            completion_tokens=written,
            cost=self.cost(prompt, written),
            seconds=time.monotonic() - start,
        )

    def _inputs(self, question: TextQuestion) -> dict[str, Any]:
        """Return what the model reads: the conversation in its own template, pictures as it wants them."""
        from PIL import Image

        turns = [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": item}
                    if isinstance(item, str)
                    else {"type": "image", "image": Image.fromarray(item)}
                    for item in message.content
                ],
            }
            for message in question.messages
        ]
        inputs = self._processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        return dict(inputs.to(self._model.device))

    def _write(self, question: TextQuestion, inputs: dict[str, Any]) -> tuple[list[str], None, int]:
        """Sample answers, n of them; greedily all are the same, so one is written and repeated."""
        import torch

        sampled = question.temperature > 0
        given = {"do_sample": True, "temperature": question.temperature, "num_return_sequences": question.n}
        # It takes no generator, so the global one is put back as it was: a judge must not change a training.
        with torch.random.fork_rng():
            if question.seed is not None:
                torch.manual_seed(question.seed)
            tokens = self._model.generate(
                **inputs, max_new_tokens=question.max_tokens, **(given if sampled else {"do_sample": False})
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(new, skip_special_tokens=True)
        return list(texts) if sampled else list(texts) * question.n, None, int(new.numel())

    def _choose(self, question: TextQuestion, inputs: dict[str, Any]) -> tuple[list[str], dict[str, float], int]:
        """Score each choice as a whole, sum of the log probabilities of its tokens, and take the likeliest or sample.

        Returns:
            Answers, {choice: log probability among the choices}, and the tokens of the longest choice.
        """
        import torch

        scores, longest = [], 0
        for choice in question.choices:
            tokens = self._processor.tokenizer(choice, add_special_tokens=False, return_tensors="pt")["input_ids"]
            tokens = tokens.to(self._model.device)
            length = int(tokens.shape[1])
            longest = max(longest, length)
            whole = dict(inputs)
            whole["input_ids"] = torch.cat([inputs["input_ids"], tokens], dim=1)
            whole["attention_mask"] = torch.ones_like(whole["input_ids"])
            if "token_type_ids" in whole:
                padding = torch.zeros_like(tokens)
                whole["token_type_ids"] = torch.cat([inputs["token_type_ids"], padding], dim=1)
            logits = self._model(**whole).logits[0, -length - 1 : -1].float()
            scores.append(logits.log_softmax(-1).gather(1, tokens[0][:, None]).sum())
        relative = torch.stack(scores).log_softmax(0)
        likely = {choice: float(score) for choice, score in zip(question.choices, relative, strict=True)}
        if question.temperature == 0:
            return [max(likely, key=likely.__getitem__)] * question.n, likely, longest
        generator = torch.Generator().manual_seed(question.seed or 0)
        weights = (relative.cpu() / question.temperature).softmax(0)
        drawn = torch.multinomial(weights, question.n, replacement=True, generator=generator)
        return [question.choices[int(i)] for i in drawn], likely, longest


def _files(folder: Path) -> str:
    """Return what tells the weights in a folder from others: names, sizes and times of change of its files."""
    if not folder.is_dir():
        return ""
    return " ".join(
        f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
        for path in sorted(folder.iterdir())
        if path.is_file()
    )
