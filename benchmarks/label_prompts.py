"""Labels a second of `reward.prompt=word`, one constrained word, against `reward.prompt=reason`, on a real server.

    python -m benchmarks.label_prompts                                    # a tiny model on the first server found here
    python -m benchmarks.label_prompts --server vllm --thoughts 10
    python -m benchmarks.label_prompts --base-url http://127.0.0.1:8000/v1 --model <name> --choices structured_outputs

Both arms are the annotator that training uses, with as many requests under way. They take turns block by block, and a
ratio is of neighbouring blocks. The model that is made here (`tiny_llm.py`) writes as much as it is told to, so what is
measured is the server and what answers of that length cost it; for what a language model takes, name one of your own.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from benchmarks.blocks import Arm, Block, compare, parser, report
from benchmarks.llm_servers import KINDS, serving
from benchmarks.tiny_llm import ABOUT, GOAL, make, texts
from vlmrl.judges.openai import ChoiceWay, OpenAIConfig
from vlmrl.reward_models.oni_labels import LabelQuestions, PromptName

FASTER = 1.0  # the least that a word must be faster by: none
LOOK = 20  # texts of each arm that are asked about to say how long answers are


def make_annotator(prompt: PromptName, config: OpenAIConfig, first: int) -> Block:
    """Make a block of labels: texts that were never asked about before, until all are labelled or given up."""
    from vlmrl.judges.desk import Desk
    from vlmrl.judges.store import AnswerStore
    from vlmrl.reward_models.oni_annotator import Annotator

    store = AnswerStore(Path(tempfile.mkdtemp()) / "answers.sqlite")
    asked = Annotator(
        Desk(config.build(), store, attempts=None),
        LabelQuestions(GOAL, ABOUT, prompt),
        config.concurrency,
        queue_size=100_000,
        attempts=1,
    )
    seeds = itertools.count(first)

    def block(steps: int) -> float:
        settled = asked.counts.labelled + asked.counts.given_up + steps
        began = time.perf_counter()
        asked.offer({(text,): 1.0 for text in texts(steps, next(seeds))})
        while asked.counts.labelled + asked.counts.given_up < settled:
            if asked.counts.failed:
                raise RuntimeError(f"{asked.counts.failed} requests brought no answer: {asked.stats()}")
            time.sleep(0.001)
        return time.perf_counter() - began

    made: Callable[..., Any] = block
    made.close = asked.close  # type: ignore[attr-defined]
    return made


def answers(prompt: PromptName, config: OpenAIConfig) -> dict[str, float]:
    """Ask about a few texts one after the other: how many tokens an answer has, and how many answers can be read."""
    from vlmrl.judges.prompts import Unreadable

    judge, questions = config.build(), LabelQuestions(GOAL, ABOUT, prompt)
    found = {"tokens": 0.0, "read": 0.0}
    try:
        for text in texts(LOOK, seed=1_000_000):
            answer = judge.model.complete(questions.question((text,)))
            found["tokens"] += answer.completion_tokens / LOOK
            try:
                questions.read((text,), answer)
                found["read"] += 1 / LOOK
            except (Unreadable, IndexError):  # no text at all
                continue
    finally:
        judge.close()
    return found


@contextmanager
def endpoint(settings: argparse.Namespace) -> Iterator[tuple[str, OpenAIConfig]]:
    """Give the server that was named, or start one with a tiny model: its name, and how it is asked.

    Raises:
        SystemExit: None can be started here.
    """
    asked: dict[str, Any] = {"concurrency": settings.concurrency, "timeout_s": 300, "deadline_s": 300, "retries": 0}
    if settings.base_url:
        choices = settings.choices or "words"
        yield (
            settings.model,
            OpenAIConfig(model=settings.model, base_url=settings.base_url, choices=choices, **asked),
        )
        return
    missing = {name: kind.missing() for name, kind in KINDS.items() if settings.server in (None, name)}
    found = [name for name, reason in missing.items() if not reason]
    if not found:
        reasons = "; ".join(f"{name} {reason}" for name, reason in missing.items())
        raise SystemExit(f"There is no server here ({reasons}). Name one that runs: --base-url, --model.")
    with tempfile.TemporaryDirectory() as folder:
        model = make(Path(folder), settings.thoughts)
        with serving(found[0], model) as url:
            choices = settings.choices or KINDS[found[0]].choices
            yield found[0], OpenAIConfig(model=str(model), base_url=url, choices=choices, **asked)


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__, "label_prompts", steps=100)
    arguments.add_argument("--server", choices=list(KINDS), help="which one to start (default: the first found here)")
    arguments.add_argument("--thoughts", type=int, default=8, help="sentences before a label (default %(default)s)")
    arguments.add_argument("--base-url", help="address of a server that runs, in place of one that is started")
    arguments.add_argument("--model", default="", help="its model, as the server calls it")
    arguments.add_argument("--choices", choices=get_args(ChoiceWay), help="how it is held to one word (judge.choices)")
    arguments.add_argument("--concurrency", type=int, default=8, help="requests at the same time (default %(default)s)")
    settings = arguments.parse_args()
    if settings.base_url and not settings.model:
        arguments.error("--base-url needs --model, the name that the server knows its model by")
    console = Console()
    prompts: tuple[PromptName, ...] = ("word", "reason")
    with endpoint(settings) as (name, config):
        for prompt in prompts:
            looked = answers(prompt, config)
            console.print(
                f"{prompt}: {looked['tokens']:.1f} tokens an answer, {looked['read']:.0%} of them can be read",
                highlight=False,
            )
        arms = {
            prompt: (Arm(prompt, make_annotator, prompt=prompt, config=config, first=1000), settings.steps)
            for prompt in prompts
        }
        comparison = compare(name, arms, settings.blocks)
    report("label_prompts", vars(settings), FASTER, "reason", [comparison], settings.out, unit="labels")


if __name__ == "__main__":
    main()
