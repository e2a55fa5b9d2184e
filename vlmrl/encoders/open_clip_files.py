"""Finds and loads what an open_clip model is made of, and says clearly what is missing."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlmrl.encoders.torchvision_ops import prepare_torchvision
from vlmrl.errors import UserError, did_you_mean, require, unknown

prepare_torchvision()
import open_clip  # noqa: E402
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model  # noqa: E402
from open_clip.transform import PreprocessCfg  # noqa: E402

CONFIG_NAME = "open_clip_config.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz")
# Two words of a preprocessing that must agree for one to stand for the other.
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
TIMEOUT = 10.0  # seconds to wait for a server before calling this machine offline


@dataclass(frozen=True)
class Source:
    """Where a model comes from, checked.

    Attributes:
        label: What a person calls it.
        model: Model name in open_clip's words, schema included.
        weights: A weights file or tag for `open_clip.create_model`; None where the schema brings weights.
        preprocess: Entries of `preprocess_cfg` that open_clip would not find by itself.
        quick_gelu: Whether the weights were trained with OpenAI's quick GELU.
    """

    label: str
    model: str
    weights: str | None
    preprocess: dict[str, Any]
    quick_gelu: bool = False


def resolve(model: str, pretrained: str, weights: str = "") -> Source:
    """Check a model's settings and find its files, without loading any.

    Args:
        model: See `OpenClipConfig.model`.
        pretrained: See `OpenClipConfig.pretrained`.
        weights: See `OpenClipConfig.weights`.

    Raises:
        UserError: Unknown model or tag, no weights, a file that is missing, or a download needed while offline.
    """
    if model.startswith("local-dir:"):
        return _folder(model)
    if model.startswith("hf-hub:"):
        repository = model.removeprefix("hf-hub:")
        _need_hub(
            repository,
            (CONFIG_NAME,),
            f"model '{model}'",
            "encoder.model=local-dir:<folder with the repository's files>",
        )
        return Source(model, model, None, {})
    if Path(model).is_dir():
        raise UserError(f"encoder.model='{model}' is a folder; say so: encoder.model=local-dir:{model}")
    name = model.replace("/", "-")
    if name not in open_clip.list_models():
        raise _unknown_model(model)
    tags = list_pretrained_tags_by_model(name)
    if weights and not Path(weights).is_file():
        raise UserError(f"encoder.weights: there is no file '{weights}'.")
    tag = get_pretrained_cfg(name, pretrained) if pretrained else {}
    if tag:
        if not weights:
            _need_tag(name, pretrained, tag)
        preprocess = {key: value for key, value in tag.items() if key in PREPROCESS_KEYS}
        return Source(f"{name}/{pretrained}", name, weights or pretrained, preprocess, bool(tag.get("quick_gelu")))
    file = weights or pretrained
    if not file:
        raise UserError(
            f"Encoder {name} needs weights: encoder.pretrained=<tag>, or encoder.weights=<file>. "
            f"Its tags: {', '.join(tags) or 'none'}."
        )
    if weights and pretrained and not Path(pretrained).is_file():
        raise unknown(f"pretrained tag of {name}", pretrained, tags)
    if not Path(file).is_file():
        if os.sep in file or file.endswith(WEIGHT_SUFFIXES):
            raise UserError(
                f"Encoder {name}: there is no weights file '{file}'. Give the path of a file, or one of its tags: "
                f"{', '.join(tags) or 'none'}."
            )
        raise unknown(f"pretrained tag of {name}", pretrained, tags)
    return _bare_file(name, file, tags)


def load(source: Source, precision: str, device: torch.device) -> tuple[Any, Any, dict[str, Any]]:
    """Make the model and its tokenizer.

    Args:
        source: What `resolve` returned.
        precision: "fp32" or "bf16".
        device: Where to put the model.

    Returns:
        The open_clip model, its `visual.preprocess_cfg` set; the tokenizer; the model's architecture in open_clip's
        words.

    Raises:
        UserError: The weights cannot be read or belong to another architecture, or the tokenizer cannot be had.
    """
    with quietly():
        tokenizer = _tokenizer(source)
        try:
            model = open_clip.create_model(
                source.model,
                pretrained=source.weights,
                precision=precision,
                device=device,
                require_pretrained=True,
                force_quick_gelu=source.quick_gelu,
                force_preprocess_cfg=source.preprocess,
            )
        except (RuntimeError, KeyError, AttributeError) as error:
            # Strict loading names every key; the first lines say enough. Other architectures' files may also lack a key
            # that open_clip's conversions look for.
            reasons = [line.strip() for line in str(error).splitlines() if "size mismatch" in line or "key(s)" in line]
            detail = "; ".join(reason[:160] for reason in reasons[:2]) or f"{type(error).__name__}: {error}"
            raise UserError(
                f"The weights of {source.label} do not fit the architecture '{source.model}' ({detail}). "
                "Give the model that these weights were saved from (encoder.model), or other weights."
            ) from error
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise UserError(
                f"The weights of {source.label} cannot be read ({type(error).__name__}: {error})."
            ) from error
        except Exception as error:
            if type(error).__module__.split(".")[0] != "safetensors" and type(error).__name__ != "SafetensorError":
                raise
            raise UserError(f"The weights of {source.label} cannot be read (safetensors: {error}).") from error
    architecture = {**open_clip.get_model_config(source.model), "force_quick_gelu": source.quick_gelu}
    return model, tokenizer, architecture


def _folder(model: str) -> Source:
    folder = Path(model.removeprefix("local-dir:"))
    if not folder.is_dir():
        raise UserError(f"encoder.model='{model}': there is no folder '{folder}'.")
    config = folder / CONFIG_NAME
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"encoder.model='{model}': the folder has no {CONFIG_NAME}, which says what the model is."
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(f"encoder.model='{model}': {config} is not JSON ({error}).") from error
    if not isinstance(content, dict) or "model_cfg" not in content:
        raise UserError(f"encoder.model='{model}': {config} has no 'model_cfg'.")
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise UserError(f"encoder.model='{model}': the folder has no weights file (open_clip_model.safetensors).")
    return Source(folder.name, model, None, {})


def _unknown_model(model: str) -> UserError:
    names = open_clip.list_models()
    family = [name for name in names if name.split("-")[0].lower() == model.split("-")[0].lower()] or names
    return UserError(
        f"Unknown open_clip model '{model}'.{did_you_mean(model, names)} Available ({len(names)}): "
        f"{', '.join(family[:20])}{', …' if len(family) > 20 or len(family) < len(names) else ''} "
        "(all: python -c 'import open_clip; print(open_clip.list_models())'); or local-dir:<folder>, or "
        "hf-hub:<owner>/<name>."
    )


def _bare_file(name: str, file: str, tags: list[str]) -> Source:
    """Find the preprocessing of a file that nothing but the architecture is known of.

    open_clip itself would take OpenAI's for every one of them.
    """
    label = f"{name}/{Path(file).name}"
    beside = Path(file).parent / CONFIG_NAME
    if beside.is_file():
        own = json.loads(beside.read_text(encoding="utf-8")).get("preprocess_cfg", {})
        return Source(label, name, file, {key: own[key] for key in PREPROCESS_KEYS if key in own})
    choices = [
        {key: get_pretrained_cfg(name, tag).get(key) for key in (*PREPROCESS_KEYS, "quick_gelu")} for tag in tags
    ]
    if not choices:
        warnings.warn(
            f"Nothing is known of how {label} wants its pictures: open_clip's default preprocessing is used. "
            f"Put an {CONFIG_NAME} with a 'preprocess_cfg' beside the file to say otherwise.",
            stacklevel=2,
        )
        return Source(label, name, file, {})
    defaults = PreprocessCfg()
    settled = [
        json.dumps(
            {key: value if value is not None else getattr(defaults, key, False) for key, value in choice.items()},
            default=list,
        )
        for choice in choices
    ]
    if len(set(settled)) > 1:
        raise UserError(
            f"Weights of {name} come with different preprocessing, and '{file}' does not say with which. Name the tag "
            f"that it was downloaded for as well: encoder.pretrained=<tag> encoder.weights={file}. "
            f"Tags: {', '.join(tags)}."
        )
    preprocess = {key: value for key, value in choices[0].items() if key in PREPROCESS_KEYS and value is not None}
    return Source(label, name, file, preprocess, bool(choices[0]["quick_gelu"]))


def _need_tag(name: str, tag: str, cfg: dict[str, Any]) -> None:
    """Make sure that a tag's weights are here or can be fetched."""
    what, way = f"{name}/{tag}", f"encoder.model={name} encoder.pretrained={tag} encoder.weights=<file>"
    if cfg.get("hf_hub"):
        repository, file = os.path.split(cfg["hf_hub"])
        # Without a name open_clip asks for its default file, the safe format first.
        files = (file,) if file else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        alternatives = tuple(f"{Path(f).stem}.safetensors" for f in files if not f.endswith(".safetensors"))
        _need_hub(repository, files + alternatives, what, way)
    elif cfg.get("url"):
        cached = Path.home() / ".cache" / "clip" / os.path.basename(cfg["url"])
        if not cached.is_file() and not _reachable(cfg["url"]):
            raise _offline(what, cfg["url"], f"put it at {cached}, or name it with {way}")


def _need_hub(repository: str, files: tuple[str, ...], what: str, way: str) -> None:
    """Make sure that one of a hub repository's files is cached or that the hub answers."""
    hub = require("huggingface_hub")
    if any(isinstance(hub.try_to_load_from_cache(repository, file), str) for file in files):
        return
    url = hub.hf_hub_url(repository, files[0])
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE") or not _reachable(url):
        raise _offline(what, url, f"put it on this machine and name it with {way}")


def _reachable(url: str) -> bool:
    """Whether the server answers at all; a refusal is an answer, and open_clip's own message then says which."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return True
    except OSError:  # URLError, timeouts, refused connections, names that cannot be looked up
        return False
    return True


def _offline(what: str, url: str, way: str) -> UserError:
    return UserError(
        f"Encoder {what} has to be downloaded ({url}), and this machine is offline (no answer, or HF_HUB_OFFLINE "
        f"is set). Fetch the file elsewhere and {way}; or use the embedded encoder: encoder=mini."
    )


def _tokenizer(source: Source) -> Any:
    """The model's own tokenizer; some live in a hub repository of their own."""
    text_cfg = (open_clip.get_model_config(source.model) or {}).get("text_cfg", {})
    hub_name = text_cfg.get("hf_tokenizer_name", "")
    if hub_name:
        require("transformers", extra="judges")
        if not source.model.startswith("local-dir:"):
            _need_hub(
                hub_name,
                ("tokenizer_config.json", "tokenizer.json"),
                f"tokenizer '{hub_name}' of {source.label}",
                "encoder.model=local-dir:<folder with the model's and the tokenizer's files>",
            )
    try:
        return open_clip.get_tokenizer(source.model)
    except (OSError, RuntimeError, ImportError) as error:
        raise UserError(f"The tokenizer of {source.label} cannot be had ({type(error).__name__}: {error}).") from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep open_clip's own log lines back: its errors come again as ours."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
