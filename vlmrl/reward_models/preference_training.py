"""Trains an ensemble of reward networks on answered comparisons."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

from vlmrl.reward_models.preference_loss import Ties, answer_loss, calibration
from vlmrl.reward_models.preference_networks import RewardEnsemble


@dataclass(frozen=True)
class TrainingSettings:
    """How an ensemble is trained; the keys of `configs/reward/vlm_preference.yaml` say what each means."""

    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    batch_size: int = 64
    max_epochs: int = 50
    patience: int = 5
    ties: Ties = "soft"
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Answers:
    """Comparisons as tensors, and what was answered.

    Attributes:
        inputs: (n, 2, L, ...) inputs of the networks for each step of both clips, left first.
        targets: (n,) float32, 1 for left, 0 for right, 0.5 for a tie.
    """

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, chosen: np.ndarray | torch.Tensor) -> Answers:
        chosen = torch.as_tensor(chosen)
        return Answers(self.inputs[chosen], self.targets[chosen])


def member_gaps(ensemble: RewardEnsemble, i: int, inputs: torch.Tensor) -> torch.Tensor:
    """Return one network's log odds that left is better, (n,) float32, of (n, 2, L, ...) inputs."""
    returns = ensemble.member(i, inputs.flatten(0, 2)).reshape(inputs.shape[:3]).sum(dim=2)
    return (returns[:, 0] - returns[:, 1]) * ensemble.log_rationality[i].exp()


@torch.no_grad()
def gaps(ensemble: RewardEnsemble, inputs: torch.Tensor, batch_size: int = 512) -> np.ndarray:
    """Return every network's log odds that left is better, (members, n) float32, of (n, 2, L, ...) inputs."""
    ensemble.eval()
    parts = [
        torch.stack([member_gaps(ensemble, i, part) for i in range(len(ensemble.members))])
        for part in inputs.split(batch_size)
    ]
    return torch.cat(parts, dim=1).cpu().numpy()


def train_ensemble(
    ensemble: RewardEnsemble, answers: Answers, held_out: Answers, settings: TrainingSettings, seed: int
) -> dict[str, float]:
    """Train each network on a bootstrap sample of the answers, until it does no better on those held out.

    Training accuracy says nothing of when to stop: with few answers it is soon perfect. Each network ends with the
    weights that had the least loss on the answers held out; without any, those after `max_epochs`.

    Args:
        ensemble: Trained in place.
        answers: To learn from, at least 1.
        held_out: To stop by.
        settings: How.
        seed: Of bootstrap and batches; nothing that others draw from is touched.

    Returns:
        `epochs` and `train_loss`, means over the networks.
    """
    rng = np.random.default_rng(seed)
    epochs, losses = [], []
    for i in range(len(ensemble.members)):
        bootstrap = answers[rng.integers(len(answers), size=len(answers))]
        epoch, loss = _train_member(ensemble, i, bootstrap, held_out, settings, rng)
        epochs.append(epoch)
        losses.append(loss)
    ensemble.eval()
    return {"epochs": float(np.mean(epochs)), "train_loss": float(np.mean(losses))}


def measure(ensemble: RewardEnsemble, answers: Answers) -> dict[str, float]:
    """Return `accuracy`, `brier` and `ece` of the mean probability on answers that decide; {} without any."""
    decided = answers[answers.targets != 0.5]
    if len(decided) == 0:
        return {}
    probabilities = (1 / (1 + np.exp(-gaps(ensemble, decided.inputs)))).mean(axis=0)
    return calibration(probabilities, decided.targets.cpu().numpy() == 1)


def _train_member(
    ensemble: RewardEnsemble,
    i: int,
    answers: Answers,
    held_out: Answers,
    settings: TrainingSettings,
    rng: np.random.Generator,
) -> tuple[int, float]:
    """Train one network; return after how many epochs it was at its best, and its loss in the last one."""
    network = ensemble.members[i]
    shared = [parameter for parameter in (ensemble.log_rationality, ensemble.log_ties) if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": ensemble.member_parameters(i), "weight_decay": settings.weight_decay},
            # Of these only entry i has a gradient, and the others must not decay.
            {"params": shared, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    best_loss, best_epoch, best, loss = np.inf, 0, None, np.nan
    for epoch in range(1, settings.max_epochs + 1):
        network.train()
        losses = []
        order = rng.permutation(len(answers))
        for start in range(0, len(order), settings.batch_size):
            batch = answers[order[start : start + settings.batch_size]]
            batch_loss = _loss(ensemble, i, batch, settings)
            optimiser.zero_grad()
            batch_loss.mean().backward()
            optimiser.step()
            losses.append(batch_loss.detach())
        loss = float(torch.cat(losses).mean())
        if len(held_out) == 0:
            continue
        network.eval()
        with torch.no_grad():
            score = float(_loss(ensemble, i, held_out, settings).mean())
        if score < best_loss:
            best_loss, best_epoch, best = score, epoch, _snapshot(ensemble, i)
        elif epoch - best_epoch >= settings.patience:
            break
    if best is None:
        return settings.max_epochs, loss
    _restore(ensemble, i, best)
    return best_epoch, loss


def _loss(ensemble: RewardEnsemble, i: int, answers: Answers, settings: TrainingSettings) -> torch.Tensor:
    log_odds = member_gaps(ensemble, i, answers.inputs)
    return answer_loss(log_odds, answers.targets, ensemble.log_ties[i], settings.ties, settings.label_smoothing)


def _snapshot(ensemble: RewardEnsemble, i: int) -> tuple[dict[str, torch.Tensor], float, float]:
    return (
        copy.deepcopy(ensemble.members[i].state_dict()),
        float(ensemble.log_rationality[i].detach()),
        float(ensemble.log_ties[i].detach()),
    )


@torch.no_grad()
def _restore(ensemble: RewardEnsemble, i: int, snapshot: tuple[dict[str, torch.Tensor], float, float]) -> None:
    weights, log_rationality, log_ties = snapshot
    ensemble.members[i].load_state_dict(weights)
    ensemble.log_rationality[i] = log_rationality
    ensemble.log_ties[i] = log_ties
