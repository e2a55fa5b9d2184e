"""Pictures that come from another process are those that it drew, and their memory goes with the processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from tests.toys import CountingEnv
from vlmrl.envs.frame_ring import FrameRing, SharedFrame
from vlmrl.envs.row_writer import ROW, RowWriter
from vlmrl.rows import Row


def picture(value: int, side: int = 4) -> np.ndarray:
    return np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3) + np.uint8(value)


def test_pictures_of_two_rows_and_two_cameras_come_back_and_are_the_reader_s_own() -> None:
    ring = FrameRing(cameras=2, height=4, width=4)
    rows = [Row(frames={"front": picture(10 * i), "side": picture(10 * i + 1, side=3)}) for i in range(2)]
    for row in rows:
        ring.put(row)
        assert all(isinstance(frame, SharedFrame) for frame in (row.frames or {}).values())
    taken = [ring.take(row) for row in rows]
    ring.put(Row(frames={"front": picture(99), "side": picture(99)}))  # writes over the first ones
    for i, row in enumerate(taken):
        assert row.frames is not None
        np.testing.assert_array_equal(row.frames["front"], picture(10 * i))
        np.testing.assert_array_equal(row.frames["side"], picture(10 * i + 1, side=3))


def test_a_picture_that_is_too_large_travels_in_its_row() -> None:
    ring = FrameRing(1, 4, 4)
    row = Row(frames={"front": picture(0, side=5)})
    ring.put(row)
    assert row.frames is not None and isinstance(row.frames["front"], np.ndarray)
    np.testing.assert_array_equal((ring.take(row).frames or {})["front"], picture(0, side=5))
    assert ring.take(Row()).frames is None


def test_across_processes_rows_are_those_of_one_process_step_by_step() -> None:
    rings = [FrameRing(1, 8, 8) for _ in range(2)]

    def factory(ring: FrameRing | None) -> RowWriter:
        return RowWriter(CountingEnv(length=3), ["frames"], ring=ring)

    apart = SubprocVecEnv([lambda ring=ring: factory(ring) for ring in rings], start_method="forkserver")
    here = DummyVecEnv([lambda: factory(None) for _ in rings])
    try:
        for venv in (apart, here):
            venv.reset()
        _same(apart.reset_infos, here.reset_infos, rings)
        shared = 0
        for _ in range(8):  # over ends of episodes, where a message has two pictures
            actions = np.zeros((2, 1), dtype=np.float32)
            (_, _, dones, infos), (_, _, _, other) = apart.step(actions), here.step(actions)
            shared += isinstance(infos[0][ROW].frames["front"], SharedFrame)
            _same(infos, other, rings)
            if dones.all():
                _same(apart.reset_infos, here.reset_infos, rings)
        assert shared == 8
    finally:
        apart.close()


def _same(apart: Sequence[dict], here: Sequence[dict], rings: list[FrameRing]) -> None:
    for ring, info, other in zip(rings, apart, here, strict=True):
        np.testing.assert_array_equal(ring.take(info.pop(ROW)).frames["front"], other.pop(ROW).frames["front"])


def _hold(ring: FrameRing, ready: object) -> None:
    ring.put(Row(frames={"front": picture(7)}))
    ready.set()  # type: ignore[attr-defined]
    time.sleep(60)


def test_memory_is_freed_where_a_worker_is_killed() -> None:
    maps = Path("/proc/self/maps")
    ring = FrameRing(1, 4, 4)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(ring, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    process.kill()
    process.join()
    taken = ring.take(Row(frames={"front": SharedFrame(1, (4, 4, 3))})).frames
    np.testing.assert_array_equal((taken or {})["front"], picture(7))  # what it wrote last is still there
    if maps.exists():
        before = maps.read_text().count("vlmrl-frames")
        del ring
        assert maps.read_text().count("vlmrl-frames") == before - 1
