"""Clips of the best and the worst row of a table, small enough to be kept with the code."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from benchmarks.results.plan import Plan, Row, Table
from benchmarks.results.records import Records
from benchmarks.results.runner import Work
from benchmarks.results.tables import gallery_clip, load_all
from vlmrl.errors import UserError, unknown
from vlmrl.workflows.evaluate import open_run
from vlmrl.workflows.rollouts import record_clip
from vlmrl.workflows.run_folder import RunFolder
from vlmrl.workflows.training import EVAL_SEED

LIMIT = 6_000_000  # bytes of all clips of the gallery: they are in every clone
EPISODES = 3
SIZE = 240  # pixels of one policy's picture, each way


def film_best_and_worst(plan: Plan, table: str, records: Records, runs: Path, videos: Path) -> list[Path]:
    """Film the rows of a table whose predicate held most and least often, and forget clips of its other rows.

    The untrained and the trained policy act side by side, in three episodes from the starts that were measured.

    Args:
        plan: All tables.
        table: Name of the table.
        records: Figures of finished runs.
        runs: Folder in which they were made.
        videos: Folder of the gallery.

    Returns:
        The clips.

    Raises:
        UserError: There is no such table, nothing in it has been run, a run is not on this machine, or the gallery
            would become too large.
    """
    if table not in plan.tables:
        raise unknown("table", table, plan.tables)
    clips = []
    for row, seed in best_and_worst(plan.tables[table], records):
        folder = Work(runs, row, seed).run()
        if folder is None:
            raise UserError(
                f"The run of '{row.name}', seed {seed}, is not on this machine, so it cannot be filmed. Make it again: "
                f"delete '{records.path(row.name, seed)}', then python -m benchmarks.results rows=[{row.name}]"
            )
        clips.append((gallery_clip(videos, row.name), folder))
    chosen = [clip for clip, _ in clips]
    for name in plan.tables[table].rows:
        if gallery_clip(videos, name) not in chosen:
            gallery_clip(videos, name).unlink(missing_ok=True)
    for clip, folder in clips:
        _film(folder, clip, videos)
    return chosen


def best_and_worst(table: Table, records: Records) -> list[tuple[Row, int]]:
    """Return the row whose predicate held most often, with its best seed, and that where it held least, with its worst.

    Raises:
        UserError: No run of the table has a predicate.
    """
    ranked: list[tuple[float, Row, dict[int, float]]] = []
    for row in table.rows.values():
        shares = {
            seed: float(record.trained["fraction"]["mean"])
            for seed, record in load_all(row, records).items()
            if "fraction" in record.trained
        }
        if shares:
            ranked.append((fmean(shares.values()), row, shares))
    if not ranked:
        raise UserError("No row of this table has been run, so there is nothing to film.")
    ranked.sort(key=lambda entry: entry[0])
    (_, worst, least), (_, best, most) = ranked[0], ranked[-1]
    chosen = [(best, max(most, key=lambda seed: most[seed]))]
    return chosen if worst is best else [*chosen, (worst, min(least, key=lambda seed: least[seed]))]


def _film(folder: RunFolder, clip: Path, videos: Path) -> None:
    settings, parts, trained = open_run(folder, "cpu")
    untrained = settings.agent.config.algorithm().load(folder.untrained, device="cpu")
    with TemporaryDirectory() as draft:
        film = Path(draft, "clip.mp4")
        try:
            policies = {"untrained": untrained, "trained": trained}
            record_clip(policies, parts.env, film, EPISODES, settings.seed + EVAL_SEED, settings.video_length, SIZE)
        finally:
            parts.close()
        others = sum(path.stat().st_size for path in videos.glob("gallery*") if path != clip)
        if others + film.stat().st_size > LIMIT:
            raise UserError(
                f"'{clip}' would take {film.stat().st_size / 1e6:.1f} MB, and with the other clips the gallery more "
                f"than {LIMIT / 1e6:.0f} MB. Remove one of '{videos}/gallery*' first."
            )
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.write_bytes(film.read_bytes())
