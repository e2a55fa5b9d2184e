"""A local image-text model: a tiny LLaVA with random weights that the test makes. Run it with `make test-judges`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.judges.clips import clip, comparison
from vlmrl.encoders.torchvision_ops import prepare_torchvision
from vlmrl.errors import UserError
from vlmrl.judges.base import Message, TextQuestion
from vlmrl.judges.desk import Desk
from vlmrl.judges.store import AnswerStore
from vlmrl.judges.transformers import TransformersConfig

prepare_torchvision()
transformers = pytest.importorskip("transformers", reason="needs vlmrl[judges]: make test-judges")
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}assistant "
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its processor, as `save_pretrained` writes them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = tmp_path_factory.mktemp("llava")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["equal unsure clip goal"],
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet),
    )
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = transformers.LlavaProcessor(
        pictures,
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=16, **sizes),
        text_config=transformers.LlamaConfig(vocab_size=len(words), **sizes),
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(path)
    return path


def question(red: float, **settings: object) -> TextQuestion:
    return TextQuestion((Message("user", ("Is it red?", clip(red, size=16)[0])),), **settings)  # type: ignore[arg-type]


def test_it_sees_writes_and_chooses(folder: Path, store: AnswerStore) -> None:
    desk = Desk(TransformersConfig(model=str(folder), max_tokens=8).build(), store)
    free, same, other = desk.ask([question(r, max_tokens=5, n=n) for r, n in ((0.9, 1), (0.9, 2), (0.1, 1))])
    assert not free.is_error, free.error
    assert same.texts == (free.texts[0],) * 2 and free.prompt_tokens > 8 and 0 < free.completion_tokens <= 5
    chosen = [desk.ask([question(r, choices=("yes", "no"))])[0] for r in (0.9, 0.1)]
    for answer in chosen:
        assert answer.logprobs is not None and answer.texts == (max(answer.logprobs, key=answer.logprobs.__getitem__),)
        assert sum(np.exp(list(answer.logprobs.values()))) == pytest.approx(1, abs=1e-5)
    assert chosen[0].logprobs != chosen[1].logprobs  # the picture counts
    assert not other.is_error


def test_sampling_is_seeded_and_leaves_the_training_alone(folder: Path, store: AnswerStore) -> None:
    desk = Desk(TransformersConfig(model=str(folder)).build(), store)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model = desk.judge.model  # type: ignore[attr-defined]
    answers = [model.complete(question(0.9, temperature=1.0, n=4, seed=s, max_tokens=6)) for s in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert answers[0].texts == answers[1].texts != answers[2].texts and len(set(answers[0].texts)) > 1


@pytest.mark.parametrize("prompt", ["single", "analyse", "critique"])
def test_comparisons_end_in_one_of_the_five(folder: Path, store: AnswerStore, prompt: str) -> None:
    config = TransformersConfig(model=str(folder), prompt=prompt, max_tokens=8)  # type: ignore[arg-type]
    (answer,) = Desk(config.build(), store).ask([comparison(0.9, 0.1)])
    if prompt == "critique":  # random weights write no JSON
        assert answer.verdict == "error" and answer.error.startswith("unreadable")
    elif not answer.is_error:
        assert answer.verdict in ("left", "right", "tie", "abstain") and answer.consistent is not None
    else:
        assert "description is empty" in answer.error


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded.*judge.download=true"):
        TransformersConfig(model="nobody/nothing").build()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        TransformersConfig(model=str(tmp_path)).build()
