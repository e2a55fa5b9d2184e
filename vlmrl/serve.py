"""Give rewards over HTTP: `python -m vlmrl.serve`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmrl.commands import run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.serve import ServeConfig

EXAMPLES = """
Pictures and words in, rewards out, over HTTP; for robots that are elsewhere. Needs vlmrl[ray].

  python -m vlmrl.serve encoder=open_clip encoder.model=ViT-H-14 encoder.pretrained=laion2b_s32b_b79k device=cuda
  python -m vlmrl.serve port=9000 scorer.store=embeddings
  python -m vlmrl.serve host=0.0.0.0 token_file=token.txt replicas=4 num_gpus=0.5

  curl http://127.0.0.1:8265/v1/models
  curl -F request='{"goal": "an open drawer"}' -F clip=@clip.mp4 http://127.0.0.1:8265/v1/rewards
"""


def main() -> None:
    """Run the command."""
    run_command("serve", EXAMPLES, _settings, _work)


def _settings(values: Mapping[str, Any]) -> ServeConfig:
    from vlmrl.workflows.config.serve import serve_settings

    return serve_settings(values)


def _work(settings: ServeConfig) -> None:
    from vlmrl.workflows.serve.run import serve

    serve(settings)


if __name__ == "__main__":
    main()
