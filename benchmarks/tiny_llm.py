"""A language model of some hundred thousand weights that answers the questions of `reward=oni`, made on the spot.

It is a Llama in the form that `transformers` writes, so that servers of such folders serve this one. What it has
learned is one rule: a message helps if it speaks of one of `GOOD`. Asked for a word it writes the word; asked to reason
it writes some sentences first. It says nothing about language models but how they are talked to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.reward_models.oni_labels import LabelQuestions

GOAL, ABOUT = "find the way out", "a toy"  # what it is asked about
GOOD = ("key", "door", "gold", "stairs")
OTHER = ("wall", "stone", "newt", "puddle", "lichen", "boulder")
DEEDS = ("you see a", "you find a", "you stand before a", "you walk past a", "you look at a")
# One such sentence after the other makes a reply as long as is wanted.
THOUGHTS = (
    "Whoever knows the game well has met many of them.",
    "What it is good for depends on where it lies and on who comes by.",
    "Nothing else is said of what the player has just done.",
    "There may be more of its kind further on.",
)
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
LONGEST = 1024  # tokens of a conversation


def texts(n: int, seed: int = 0) -> list[str]:
    """Return n messages, about half of which help; all are different, and different from those of any other seed."""
    rng = np.random.default_rng(seed)
    things = [rng.choice(GOOD if rng.random() < 0.5 else OTHER) for _ in range(n)]
    return [f"{rng.choice(DEEDS)} {thing}, number {i} of {seed}" for i, thing in enumerate(things)]


def helps(text: str) -> bool:
    """Return what the model should say of a message."""
    return any(word in text for word in GOOD)


def reasoning(text: str, thoughts: int) -> str:
    """Return what the model should write of a message when it is asked to reason."""
    thing = next(word for word in (*GOOD, *OTHER) if word in text)
    said = " ".join(THOUGHTS[i % len(THOUGHTS)] for i in range(thoughts))
    return f"The message speaks of a {thing}. {said}\nlabel: {'yes' if helps(text) else 'no'}"


def make(folder: Path, thoughts: int = 1, steps: int = 160, seed: int = 0) -> Path:
    """Train the model and write it.

    Args:
        folder: Where to; has then what `save_pretrained` writes of model and tokenizer.
        thoughts: Sentences that it writes before a label, of about 12 tokens each.
        steps: Gradient steps.
        seed: Of weights and order.

    Returns:
        The folder.

    Raises:
        AssertionError: It has not learned to answer; more `steps` would help.
    """
    import torch
    import transformers

    lessons = _lessons(thoughts, seed)
    words = _tokenizer([question + answer for question, answer in lessons])
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=LONGEST,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.convert_tokens_to_ids("<|end|>"),
        pad_token_id=words.convert_tokens_to_ids("<pad>"),
    )
    model = transformers.LlamaForCausalLM(config)
    _point_at_things(model, words)
    _train(model, words, lessons, steps, np.random.default_rng(seed))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _lessons(thoughts: int, seed: int) -> list[tuple[str, str]]:
    """Return (conversation up to the answer, answer) for both ways to ask, by turns."""
    lessons = []
    numbers = np.random.default_rng(seed).integers(10**6, size=100)  # or it would learn what the numbers are
    for text in (text for number in numbers.tolist() for text in texts(4, number)):
        for prompt, answer in (("word", "yes" if helps(text) else "no"), ("reason", reasoning(text, thoughts))):
            asked = LabelQuestions(GOAL, ABOUT, prompt).question((text,))  # type: ignore[arg-type]
            turns = "".join(f"<|{turn.role}|>{turn.content[0]}<|end|>" for turn in asked.messages)
            lessons.append((f"{turns}<|assistant|>", f"{answer}<|end|>"))
    return lessons


def _tokenizer(corpus: list[str]) -> Any:
    """Return a byte-level tokenizer in which most words of the corpus are one token."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|end|>",
        additional_special_tokens=list(SPECIAL[2:]),
        chat_template=TEMPLATE,
        model_max_length=LONGEST,
    )


def _point_at_things(model: Any, words: Any, strength: float = 4.0) -> None:
    """Begin with heads that look at the one word that matters: to find it by itself takes most of a training.

    Coordinate 0 of an embedding says whether it is such a word, coordinate 1 is the same everywhere. Keys have the
    first and queries the second in that of their numbers which the rotary position encoding turns the least (Su et
    al.: "RoFormer", arXiv 2104.09864): by less than 0.03 over a conversation of 150 tokens.
    """
    import torch

    first, heads = model.model.layers[0].self_attn, model.config.num_attention_heads
    width = model.config.hidden_size // heads
    with torch.no_grad():
        vectors, size = model.model.embed_tokens.weight, 3 * model.config.initializer_range
        vectors[:, 0], vectors[:, 1] = 0.0, size
        for word in (*GOOD, *OTHER):
            (number,) = words(f" {word}", add_special_tokens=False)["input_ids"]
            vectors[number, 0] = size
        for head in range(heads):
            slowest = head * width + width // 2 - 1
            for projection, coordinate in ((first.k_proj, 0), (first.q_proj, 1)):
                projection.weight[slowest] = 0.0
                projection.weight[slowest, coordinate] = strength


def _train(
    model: Any, words: Any, lessons: list[tuple[str, str]], steps: int, rng: np.random.Generator, batch: int = 8
) -> None:
    """Teach the model the answers; of the questions it learns nothing."""
    import torch

    highest = 6e-3
    optimiser = torch.optim.AdamW(model.parameters(), lr=highest, betas=(0.9, 0.98), weight_decay=0.0)
    encoded = [tuple(words(part, add_special_tokens=False)["input_ids"] for part in lesson) for lesson in lessons]
    right = 0.0
    for step in range(steps):
        chosen = [encoded[i] for i in rng.integers(len(encoded), size=batch)]
        width = max(len(question) + len(answer) for question, answer in chosen)
        tokens = torch.full((batch, width), words.pad_token_id)
        targets = torch.full((batch, width), -100)
        for row, (question, answer) in enumerate(chosen):
            whole = torch.tensor([*question, *answer])
            tokens[row, : len(whole)] = whole
            targets[row, len(question) : len(whole)] = whole[len(question) :]
        # What is beyond the end of a shorter one comes after it, where causal attention does not look.
        output = model(input_ids=tokens, labels=targets)
        optimiser.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = highest * min(1.0, (step + 1) / 10) * (1 - step / steps)
        optimiser.step()
        taught = targets[:, 1:] != -100
        right = float((output.logits[:, :-1].argmax(-1) == targets[:, 1:])[taught].float().mean())
    assert right > 0.98, f"after {steps} steps {right:.0%} of the last batch's tokens are right"
