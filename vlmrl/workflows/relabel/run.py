"""Give a dataset new rewards: score every episode, then write them down."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape

import vlmrl
from vlmrl.datasets.base import CorruptEpisode, Dataset, Episode, open_dataset
from vlmrl.datasets.lerobot import LeRobotDataset
from vlmrl.encoders.base import ELSEWHERE, Encoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import FILE_SETTINGS
from vlmrl.serving.settings import Service
from vlmrl.workflows.build import resolve_device
from vlmrl.workflows.config.relabel import RelabelConfig
from vlmrl.workflows.config.scene import NO_ENV
from vlmrl.workflows.relabel.index import FrameIndex
from vlmrl.workflows.relabel.ledger import Ledger
from vlmrl.workflows.relabel.ray_pass import Passed, encode_with_ray, require_ray_data
from vlmrl.workflows.relabel.score import REMEMBERED, EpisodeScorer, Eye, choose_cameras, local_scorer
from vlmrl.workflows.relabel.write import Output, open_output
from vlmrl.workflows.report import counted, make_console, placed, python_command, shown, tracked
from vlmrl.workflows.run_folder import create

MOST_NAMED = 10  # episodes that are named where it was said before what is wrong with each


def relabel(settings: RelabelConfig) -> Path:
    """Give every episode of a dataset new rewards, and return where they are.

    Rewards of episodes that are done are kept beside the output until it is complete, embeddings beside the dataset for
    good: a run that was killed goes on, and another prompt needs no image pass. Both end in the same bytes as a run
    that was not killed, on devices of the same kind.

    Args:
        settings: Says which data, which reward, and where it goes; `run_dir` is the folder for what was asked.

    Raises:
        UserError: The name is taken, episodes are corrupt and not to be skipped, or the reward cannot be had.
    """
    console = make_console()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    dataset = open_dataset(settings.dataset)
    output = open_output(settings, dataset)
    if settings.on_error == "refuse":
        _refuse_corrupt(settings, dataset)
    service = _service(settings, dataset)
    digest = _digest(dataset)
    index = ledger = None
    try:
        if service is not None and service.store is not None:
            index = FrameIndex(service.store.path.parent, digest, service.store)
        cameras = choose_cameras(dataset, settings.cameras, needed=service is not None)
        encoder = service.encoder if service is not None else None
        asked = _provenance(settings, dataset, encoder, cameras)
        ledger = Ledger(output.ledger, asked | {"dataset digest": digest, "out": settings.out})
        kept = [ledger.path] + (
            [service.store.path.parent] if service is not None and service.store is not None else []
        )
        create(Path(settings.run_dir), settings)
        _announce(console, settings, dataset, encoder, cameras, ledger)
        task = settings.scene.make_task()
        scorer = EpisodeScorer(settings, task, service, cameras, resolve_device(settings.device), index)
        eye = Eye(service, cameras, index) if service is not None else None
        started = time.monotonic()
        try:
            ahead = _ahead(settings, dataset, cameras, service, index)
            _score(settings, dataset, scorer, ledger, kept, ahead, partial(output.check, eye=eye))
        except KeyboardInterrupt:
            console.print(
                f"Interrupted; {counted(len(ledger), 'episode')} done, and the same command goes on from there."
            )
            raise SystemExit(130) from None
        seconds = time.monotonic() - started
        problems = ledger.problems()
        rewards = {i: values for i in range(len(dataset)) if (values := ledger.rewards(i)) is not None}
        if not rewards:
            raise UserError(f"No episode of '{settings.dataset}' can have rewards: {_listed(dataset, problems)}")
        skipped = [{"episode": _name(dataset, i), "problem": problem} for i, problem in problems.items()]
        provenance = asked | {"relabel": asked["relabel"] | {"skipped": skipped}}
        output.write(rewards, provenance, eye)
        ledger.remove()
    finally:
        if ledger is not None:
            ledger.close()
        if index is not None:
            index.close()
        if service is not None:
            service.close()
    _report(console, settings, output, dataset, rewards, problems, scorer, seconds)
    return output.path


def _service(settings: RelabelConfig, dataset: Dataset) -> Service | None:
    """Load the encoder, with a store of embeddings beside the dataset; None where nobody looks at pictures."""
    scene = settings.scene
    if not scene.reward.config.uses_encoder and settings.observe != "embeddings":
        return None
    path = dataset.path.absolute()
    own = scene.scorer.config
    store = own.store or str(path.with_name(f".{path.name}.embeddings"))
    if scene.scorer.name == "ray":  # actors encode the pictures in a pass of their own; sentences are encoded here
        require_ray_data()
        config = local_scorer(settings, store)
    else:
        config = replace(own, store=store, deduplicate=max(own.deduplicate, REMEMBERED))
    service: Service = config.build(scene.encoder.config, resolve_device(settings.device))
    try:
        service.encoder.check_env(ELSEWHERE if scene.env.name == NO_ENV else scene.env.name)
    except UserError:
        service.close()
        raise
    return service


def _ahead(
    settings: RelabelConfig,
    dataset: Dataset,
    cameras: tuple[str, ...],
    service: Service | None,
    index: FrameIndex | None,
) -> Callable[[list[int], Callable[[], object]], Passed] | None:
    """Return what encodes the pictures of episodes ahead of the rewards; None where these see to it themselves."""
    if settings.scene.scorer.name != "ray" or service is None or service.store is None or index is None:
        return None
    device = resolve_device(settings.device)
    return partial(encode_with_ray, settings, dataset, cameras, device, service.store, index)


def _score(
    settings: RelabelConfig,
    dataset: Dataset,
    scorer: EpisodeScorer,
    ledger: Ledger,
    kept: Sequence[Path],
    ahead: Callable[[list[int], Callable[[], object]], Passed] | None,
    check: Callable[[Episode, int], None],
) -> None:
    """Reward the episodes that the ledger does not know yet.

    Args:
        settings: Those of the command.
        dataset: The dataset.
        scorer: Rewards an episode.
        ledger: What is done.
        kept: Where that is, the ledger and a folder of embeddings, for a refusal to say.
        ahead: Takes numbers of episodes, encodes their pictures, and calls back for each; None if nothing does.
        check: Finds what of an episode and its position could not be written.

    Raises:
        UserError: An episode is corrupt, and such are to be refused.
    """
    todo = [i for i in range(len(dataset)) if i not in ledger]
    earlier = ledger.problems()
    if earlier and settings.on_error == "refuse":  # an earlier run was to skip them
        raise _refusal(settings, dataset, earlier, ledger, kept)
    started = time.monotonic()
    passed = Passed()
    unseen = [i for i in todo if _lacks_embeddings(dataset, scorer, i)] if ahead is not None else []
    if ahead is not None and unseen:
        with tracked(total=len(unseen), desc="pictures", unit="episode", show=settings.progress_bar) as bar:
            passed = ahead(unseen, bar.update)
        scorer.reused -= passed.pictures  # it will find them in the index
    with tracked(todo, desc="rewards", unit="episode", show=settings.progress_bar) as bar:
        for i, problem in earlier.items():  # said here too, so that at the end their names will do
            bar.write(f"skipped: {_name(dataset, i)} {problem}")
        for i in bar:
            try:
                if i in passed.problems:
                    raise CorruptEpisode(passed.problems[i])
                episode = dataset.episode(i)
                episode.check()
                rewards = scorer.score(episode, i)
                check(episode, i)
            except CorruptEpisode as error:
                if settings.on_error == "refuse":
                    raise _refusal(settings, dataset, {i: str(error)}, ledger, kept) from error
                ledger.put_problem(i, str(error))
                bar.write(f"skipped: {_name(dataset, i)} {error}")
                continue
            ledger.put(i, rewards)
            if scorer.frames:
                bar.set_postfix_str(f"{scorer.frames / (time.monotonic() - started):.0f} frames/s")


def _lacks_embeddings(dataset: Dataset, scorer: EpisodeScorer, i: int) -> bool:
    """Say whether an episode has pictures to be encoded; a corrupt one is named when its turn comes."""
    try:
        return scorer.lacks_embeddings(dataset.episode(i), i)
    except CorruptEpisode:
        return False


def _refuse_corrupt(settings: RelabelConfig, dataset: Dataset) -> None:
    """Find what can be seen without decoding pictures, before an encoder is loaded and hours are spent on them.

    Raises:
        UserError: Episodes are corrupt; it has all of them.
    """
    problems = {}
    with tracked(range(len(dataset)), desc="checks", unit="episode", show=settings.progress_bar, leave=False) as bar:
        for i in bar:
            try:
                dataset.episode(i).check()
            except CorruptEpisode as error:
                problems[i] = str(error)
    if problems:
        raise _refusal(settings, dataset, problems)


def _refusal(
    settings: RelabelConfig,
    dataset: Dataset,
    problems: Mapping[int, str],
    ledger: Ledger | None = None,
    kept: Sequence[Path] = (),
) -> UserError:
    """Return what refuses corrupt episodes, and says where what is done is kept.

    Args:
        settings: Those of the command.
        dataset: The dataset.
        problems: {position: what is wrong}, at least one.
        ledger: What is done; None before anything is.
        kept: See `_score`; a ledger in which nothing is done goes.
    """
    places = [shown(path) for path in kept if ledger is None or path != ledger.path or len(ledger)]
    done = f" What is done is kept in {' and '.join(places)}, and the same command goes on from there."
    count = f"{len(problems):,} of {counted(len(dataset), 'episode')} are corrupt: " if len(problems) > 1 else ""
    return UserError(
        f"dataset={settings.dataset}: {count}{_listed(dataset, problems)} on_error=skip leaves such episodes out, each "
        f"named.{done if places else ''}"
    )


def _name(dataset: Dataset, i: int) -> str:
    """Name an episode, even one that cannot be read."""
    names = getattr(dataset, "names", None)
    return f"episode {i}" + (f" ({names[i]})" if names is not None else "")


def _listed(dataset: Dataset, problems: Mapping[int, str]) -> str:
    first = [f"{_name(dataset, i)} {problem}" for i, problem in list(problems.items())[:3]]
    return "; ".join(first) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "") + "."


def _named(dataset: Dataset, positions: Iterable[int]) -> str:
    """Name episodes in short, the first few of them."""
    names: Sequence[str] | None = getattr(dataset, "names", None)
    short = [names[i] if names is not None else f"episode {i}" for i in positions]
    return ", ".join(short[:MOST_NAMED]) + (f" and {len(short) - MOST_NAMED:,} more" if len(short) > MOST_NAMED else "")


def _provenance(
    settings: RelabelConfig, dataset: Dataset, encoder: Encoder | None, cameras: tuple[str, ...]
) -> dict[str, Any]:
    """Say what the rewards follow from, ready for JSON; it goes into the new dataset."""
    scene = settings.scene
    words = scene.words
    own = dict(dataset.metadata.get("vlmrl", {}))
    relabelled: dict[str, Any] = {
        "source": settings.dataset,
        "source_format": dataset.format,
        "reward": {"name": scene.reward.name, **asdict(scene.reward.config)},
        "files": _files(scene.reward.config),
        "goal": list(words.goal) if words is not None else [],
        "baseline": list(words.baseline) if words is not None else [],
        "negatives": list(words.negatives) if words is not None else [],
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint} if encoder is not None else None,
        "precision": getattr(scene.encoder.config, "precision", None) if encoder is not None else None,
        "batch_size": scene.scorer.config.batch_size,
        "cameras": list(cameras),
        "score_every": scene.score_every,
        "between": scene.between,
        "use_as": settings.use_as,
        "observe": settings.observe,
        "vlmrl": vlmrl.__version__,
    }
    if settings.use_as == "potential":
        relabelled |= {"gamma": settings.gamma, "shaping_weight": settings.shaping_weight}
    # What it was recorded in stays true; what an earlier relabelling said of rewards does not.
    kept = {"env": scene.plain()["env"], "task": scene.plain()["task"]} | {
        key: value for key, value in own.items() if key in ("cameras", "collect", "fps", "text", "versions")
    }
    return json.loads(json.dumps({**kept, "relabel": relabelled}))


def _files(config: Any) -> dict[str, str]:
    """Return {setting: sha256} of the files that a reward's settings name: a path can hold other weights tomorrow."""
    digests = {}
    for setting in FILE_SETTINGS:
        named = getattr(config, setting, "")
        if named and Path(named).exists():  # what is not there is refused when the reward is built
            digest = hashlib.sha256()
            for path in _contents([Path(named)]):
                digest.update(path.read_bytes())
            digests[setting] = digest.hexdigest()
    return digests


def _contents(roots: list[Path]) -> list[Path]:
    """Return these files, and those in these folders but hidden ones, in one order."""
    return [
        path
        for root in roots
        for path in ([root] if root.is_file() else sorted(p for p in root.rglob("[!.]*") if p.is_file()))
    ]


def _digest(dataset: Dataset) -> str:
    """Return a digest of what tells a dataset from another under the same name, without reading all of it."""
    roots = [dataset.path]
    if isinstance(dataset, LeRobotDataset):  # tables of rewards lie beside these, and are no part of the recordings
        roots = [dataset.path / name for name in ("data", "meta", "videos")]
    sizes = [
        (str(path.relative_to(dataset.path.parent)), path.stat().st_size, path.stat().st_mtime_ns)
        for path in _contents(roots)
    ]
    return hashlib.sha256(json.dumps([len(dataset), sizes]).encode()).hexdigest()


def _announce(
    console: Console,
    settings: RelabelConfig,
    dataset: Dataset,
    encoder: Encoder | None,
    cameras: tuple[str, ...],
    ledger: Ledger,
) -> None:
    scene = settings.scene
    console.print(
        f"[bold]{escape(settings.dataset)}[/] ({dataset.format}, {counted(len(dataset), 'episode')}) · "
        f"task {scene.task.name} · reward {scene.reward.name}",
        highlight=False,
    )
    if scene.words is not None:
        goal, baseline = ("; ".join(words) for words in (scene.words.goal, scene.words.baseline))
        console.print(f"goal: {goal!r}" + (f"  baseline: {baseline!r}" if baseline else ""), markup=False)
    if encoder is not None:
        console.print(f"encoder: {encoder.name}, cameras: {', '.join(cameras)}", highlight=False, markup=False)
    if len(ledger):
        console.print(f"going on: {counted(len(ledger), 'episode')} done", highlight=False)


def _report(
    console: Console,
    settings: RelabelConfig,
    output: Output,
    dataset: Dataset,
    rewards: Mapping[int, np.ndarray],
    problems: Mapping[int, str],
    scorer: EpisodeScorer,
    seconds: float,
) -> None:
    values = np.concatenate([part[np.isfinite(part)] for part in rewards.values()])
    console.print(
        f"{counted(len(rewards), 'episode')}, {counted(len(values), 'reward')}: "
        f"mean {values.mean():.4g}, standard deviation {values.std():.4g}, {values.min():.4g} to {values.max():.4g}",
        highlight=False,
    )
    if values.std() < 1e-6:
        console.print("[bold]All rewards are the same[/]: nothing but behaviour cloning can be learned from them.")
    if scorer.frames:
        console.print(
            f"{scorer.frames:,} pictures, {scorer.frames / max(seconds, 1e-9):.0f} a second; {scorer.reused:,} of them "
            "were known, and not encoded again",
            highlight=False,
        )
    if problems:
        console.print(
            f"[bold]skipped {counted(len(problems), 'episode')}[/]: {escape(_named(dataset, problems))}",
            highlight=False,
        )
    console.print(f"{output.kind}: {placed(settings.out, output.path)}", soft_wrap=True, highlight=False, markup=False)
    if output.kind == "dataset":
        console.print(
            f"a policy from it: {python_command()} -m vlmrl.train env=none agent=iql dataset={settings.out}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
