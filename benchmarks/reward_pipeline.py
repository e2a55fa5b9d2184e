"""What a reward in words costs, wherever its encoder runs: the suite's scorers, what one would write, and the limits.

    python -m benchmarks.reward_pipeline --docs                          # a CPU, the embedded encoder
    python -m benchmarks.reward_pipeline --docs --device cuda --model ViT-L-14 --batch-size 256 --steps 5000    # a GPU

Random weights take as long as others. Without a learner, all arms play the same recorded actions on the humanoid: the
reward-free loop, the encoder alone, a wrapper that encodes each step's picture, VLM-RM's manner (an episode, then all
of its pictures), and the suite's path with each scorer, at every frame and at every k-th. Then SAC learns in the
reward-free loop and in the suite's. Arms take turns block by block, and ratios are of neighbouring blocks. Last, each
stage by itself.

Figures go to JSON and a picture; `--docs` also writes them into docs/performance.md, and `--docs --read <file>` does
only that.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.blocks import Arm, Comparison, compare, parser
from benchmarks.pipeline_arms import make_encoder, make_episodic, make_free, make_naive, make_suite
from benchmarks.pipeline_report import fill_docs, goals, ordinal, picture, tables
from benchmarks.pipeline_stages import STAGES, make_matmul, make_stage
from vlmrl.workflows.run_folder import versions

PARTS = ("path", "learner", "stages")
RATES = {"1": Fraction(1), "1/8": Fraction(1, 8), "1/32": Fraction(1, 32)}
MATRIX = {"cpu": 1024, "cuda": 8192}  # rows of the matrices whose product tells a device's rate


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__, "reward_pipeline", steps=100)
    arguments.add_argument("--device", default="cpu", help="of the encoder and the learner (default %(default)s)")
    arguments.add_argument("--model", help="an open_clip architecture with random weights; without it the embedded one")
    arguments.add_argument("--precision", choices=["fp32", "bf16"], help="of the suite's encoder (bf16 on a GPU)")
    arguments.add_argument("--n-envs", type=int, default=8, help="environments (default %(default)s)")
    arguments.add_argument("--batch-size", type=int, default=64, help="frames encoded at once (default %(default)s)")
    arguments.add_argument("--every", type=int, default=4, help="k of every k-th frame (default %(default)s)")
    arguments.add_argument("--scorers", nargs="*", default=["local", "thread", "process"], help="default %(default)s")
    arguments.add_argument("--updates", choices=RATES, default="1", help="gradient steps a transition (default 1)")
    arguments.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    arguments.add_argument("--docs", action="store_true", help="write the figures into docs/performance.md as well")
    arguments.add_argument("--read", type=Path, help="take these figures, and measure nothing")
    settings = arguments.parse_args()
    if settings.read is not None:
        result = json.loads(settings.read.read_text())
    else:
        with encoder_settings(settings) as encoder:
            result = measure(settings, encoder)
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(json.dumps(result, indent=2) + "\n")
        settings.out.with_suffix(".svg").write_text(picture(result))
    Console().print(tables(result), markup=False, soft_wrap=True)
    if settings.docs:
        fill_docs(result)


def measure(settings: Any, encoder: Any) -> dict[str, Any]:
    """Run the comparisons and return all figures."""
    comparisons = []
    if "path" in settings.parts:
        for k in dict.fromkeys((1, settings.every)):
            comparisons.append(compare("path", path_arms(settings, encoder, k), settings.blocks))
    if "learner" in settings.parts:
        for k in dict.fromkeys((1, settings.every)):
            comparisons.append(compare("learner", learner_arms(settings, encoder, k), settings.blocks))
    if "stages" in settings.parts:
        comparisons += stages(settings, encoder)
    result = {
        "benchmark": "reward_pipeline",
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(settings).items()},
        "machine": machine(settings.device),
        "versions": versions(),
        "gflop_per_frame": gflop(encoder),
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }
    return result | {"goals": goals(result)}


def path_arms(settings: Any, encoder: Any, every: int) -> dict[str, tuple[Arm, int]]:
    """Return the arms without a learner; those that do not look at every k-th frame only come with every frame.

    Two comparisons and not one, because each arm of several environments has as many processes.
    """
    slow, fast = settings.steps, 8 * settings.steps
    here = {"encoder": encoder, "device": settings.device}
    plain = {"encoder": _fp32(encoder), "device": settings.device}
    arms = {"naive wrapper": (Arm("naive wrapper", make_naive, default_look=True, **plain), slow)}
    arms |= suite_arms(settings, here, every, None, fast)
    arms["reward-free"] = (
        Arm("reward-free", make_free, updates=None, n_envs=settings.n_envs, device=settings.device),
        fast,
    )
    if every > 1:
        return arms
    arms["encoder alone"] = (Arm("encoder alone", make_encoder, batch_size=settings.batch_size, **here), fast)
    arms["naive wrapper, our pictures"] = (Arm("naive wrapper, ours", make_naive, default_look=False, **plain), slow)
    for name, default_look, steps in (
        ("an episode at a time", True, slow),
        ("an episode at a time, our pictures", False, fast),
    ):
        arms[name] = (Arm(name, make_episodic, n_envs=settings.n_envs, default_look=default_look, **here), steps)
    return arms


def learner_arms(settings: Any, encoder: Any, every: int) -> dict[str, tuple[Arm, int]]:
    """Return the arms with SAC; the first is the reward-free loop."""
    updates = RATES[settings.updates]
    free = Arm("reward-free", make_free, updates=updates, n_envs=settings.n_envs, device=settings.device)
    here = {"encoder": encoder, "device": settings.device}
    return {"reward-free": (free, settings.steps), **suite_arms(settings, here, every, updates, settings.steps)}


def suite_arms(
    settings: Any, here: dict[str, Any], every: int, updates: Fraction | None, steps: int
) -> dict[str, tuple[Arm, int]]:
    """Return the suite's path with each scorer."""
    return {
        (name := f"{scorer}, every {ordinal(every)}frame"): (
            Arm(
                name, make_suite, scorer=scorer, settings={"batch_size": settings.batch_size}, score_every=every,
                n_envs=settings.n_envs, fill_every=8, updates=updates, **here,
            ), steps,
        )
        for scorer in settings.scorers
    }  # fmt: skip


def stages(settings: Any, encoder: Any) -> list[Comparison]:
    """Measure each stage by itself, a few at a time: one process each is much for a small machine."""
    counts = {"physics": 400, "relabel": 64_000, "copy, 150 kB": 640, "submit, 150 kB": 640, "digest": 640}
    names = list(STAGES)
    half = len(names) // 2
    compared = []
    for i, part in enumerate((names[:half], names[half:])):
        arms = {
            name: (
                Arm(
                    name,
                    make_stage,
                    stage=name,
                    batch_size=settings.batch_size,
                    encoder=_fp32(encoder),
                    device=settings.device,
                ),
                counts.get(name, settings.steps),
            )
            for name in part
        }
        if i:
            size = MATRIX["cuda" if settings.device.startswith("cuda") else "cpu"]
            arms["matmul"] = (Arm("matmul", make_matmul, device=settings.device, size=size), 20)
        compared.append(compare("stages", arms, settings.blocks))
    return compared


@contextmanager
def encoder_settings(settings: Any) -> Iterator[Any]:
    """Return the encoder's settings: the embedded one, or an architecture whose random weights lie in a folder."""
    precision = settings.precision or ("fp32" if settings.device == "cpu" else "bf16")
    from vlmrl.encoders.mini import MiniConfig
    from vlmrl.encoders.open_clip import OpenClipConfig

    if settings.model is None:
        yield MiniConfig(precision=precision, batch_size=settings.batch_size)
        return
    with tempfile.TemporaryDirectory() as folder:
        random_weights(settings.model, Path(folder))
        yield OpenClipConfig(f"local-dir:{folder}", precision=precision, batch_size=settings.batch_size)


def random_weights(model: str, folder: Path) -> None:
    """Write an open_clip model as it is before training."""
    import torch
    from safetensors.torch import save_file

    from vlmrl.encoders.open_clip_files import CONFIG_NAME, open_clip

    torch.manual_seed(0)
    made = open_clip.create_model(model)
    save_file(
        {key: value.contiguous() for key, value in made.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    cfg = {"model_cfg": open_clip.get_model_config(model), "preprocess_cfg": made.visual.preprocess_cfg}
    (folder / CONFIG_NAME).write_text(json.dumps(cfg, default=list))


def gflop(encoder: Any) -> float:
    """Count 10^9 floating-point operations of one picture, two for each multiplication with addition."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = _fp32(encoder).build("cpu")
    torch.backends.mha.set_fastpath_enabled(False)  # its operations are not counted
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model._model.encode_image(torch.zeros(1, 3, *model.image_size))
    torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops() / 1e9


def machine(device: str) -> dict[str, Any]:
    """Say what this was measured on."""
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = found[1] if found else cpu
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "load": os.getloadavg()[0]}


def _fp32(encoder: Any) -> Any:
    from dataclasses import replace

    return replace(encoder, precision="fp32")


if __name__ == "__main__":
    main()
