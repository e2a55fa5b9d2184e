"""Success predicates of the humanoid's poses: VLM-RM's eight.

Heights are of the named points' centres above the floor, in m. For scale: standing, the torso is at 1.29, the pelvis at
0.87, a knee at 0.42, a foot at 0.075, a hand at 1.35, the head at 1.48; in a tall kneel torso, pelvis and knees are at
0.93, 0.50 and 0.08, sitting on the heels at 0.70, 0.28 and 0.11. Lengths: trunk 0.42 (torso to pelvis), thigh 0.40,
shin 0.35.

How the limits were checked, with pictures at each of them: `docs/predicates.md`.
"""

from __future__ import annotations

import numpy as np

from vlmrl.envs.tasks import Condition, State, above, below


def kneeling(state: State) -> dict[str, Condition]:
    """Both knees bent and on the floor, trunk upright, seat and hands off the floor.

    VLM-RM (Rocamonde et al. 2023, Table 2) rates kneeling by "both knees touching the floor, not losing balance nor
    kneeling in the air". A knee at 0.20 m is low enough for the shin (radius 0.05 m) to rest on the floor or on the
    foot; bent by 60 degrees at least, so that a wide straddle on straight legs is no kneel.
    """
    knees = max(state["right_knee"][2], state["left_knee"][2])
    hands = min(state["right_hand"][2], state["left_hand"][2])
    return {
        "knees down": below(knees, 0.20, 0.3),
        "knees bent": above(min(knee_bends(state)), np.deg2rad(60), np.deg2rad(60)),
        "seat up": above(state["pelvis"][2], 0.2, 0.15),
        "trunk upright": above(state["torso_up"][2], np.cos(np.deg2rad(40)), 0.8),
        "hands up": above(hands, 0.15, 0.15),
    }


def standing(state: State) -> dict[str, Condition]:
    """Upright on both feet, knees nearly straight.

    VLM-RM's Table 2 asks for "standing up without losing balance".
    """
    feet = max(state["right_foot"][2], state["left_foot"][2])
    knees = min(state["right_knee"][2], state["left_knee"][2])
    return {
        "torso high": above(state["torso"][2], 1.15, 0.9),
        "trunk upright": above(state["torso_up"][2], np.cos(np.deg2rad(25)), 0.8),
        "knees high": above(knees, 0.36, 0.3),
        "feet down": below(feet, 0.2, 0.3),
    }


def arms_raised(state: State) -> dict[str, Condition]:
    """Standing, both hands higher than the head's centre by half its radius (0.045 m)."""
    hands = min(state["right_hand"][2], state["left_hand"][2])
    return standing(state) | {"hands above head": above(hands - state["head"][2], 0.045, 0.6)}


def hands_on_hips(state: State) -> dict[str, Condition]:
    """Standing, the centre of each hand within 0.11 m of the hips' surface, on its own side.

    VLM-RM's Table 2 asks for "both hands on the base of the hips, not on the chest". The hips are a capsule across the
    body (radius 0.09 m, 0.14 m between the centres of its ends); a hand (radius 0.04 m) that touches them is at 0.04 m.
    """
    _, left, _ = _axes(state)
    gaps, sideways = [], []
    for side, sign in (("right", -1), ("left", 1)):
        hand = state[f"{side}_hand"] - state["pelvis"]
        gaps.append(np.linalg.norm(hand - np.clip(hand @ left, -0.07, 0.07) * left) - 0.09)
        sideways.append(sign * (hand @ left))
    return standing(state) | {
        "hands at hips": below(float(max(gaps)), 0.11, 0.6),
        "hands at the sides": above(min(sideways), 0.1, 0.3),
    }


def arms_crossed(state: State) -> dict[str, Condition]:
    """Standing, each hand past the trunk's middle to the other side, ahead of it, between hips and chin."""
    forward, left, up = _axes(state)
    right_hand, left_hand = state["right_hand"] - state["torso"], state["left_hand"] - state["torso"]
    heights = [float(hand @ up) for hand in (right_hand, left_hand)]
    return standing(state) | {
        "right hand across": above(right_hand @ left, 0.0, 0.5),
        "left hand across": above(left_hand @ -left, 0.0, 0.5),
        "hands in front": above(min(right_hand @ forward, left_hand @ forward), 0.05, 0.3),
        "hands above hips": above(min(heights), -0.45, 0.3),
        "hands below chin": below(max(heights), 0.2, 0.3),
    }


def one_leg(state: State) -> dict[str, Condition]:
    """Upright on one foot, the leg nearly straight, the other foot at 0.24 m or higher (0.165 m off the floor)."""
    feet = {side: float(state[f"{side}_foot"][2]) for side in ("right", "left")}
    stands = min(feet, key=lambda side: feet[side])
    return {
        "torso high": above(state["torso"][2], 1.1, 0.9),
        "trunk upright": above(state["torso_up"][2], np.cos(np.deg2rad(30)), 0.8),
        "knee high": above(state[f"{stands}_knee"][2], 0.33, 0.3),
        "one foot down": below(feet[stands], 0.12, 0.2),
        "other foot up": above(max(feet.values()), 0.24, 0.165),
    }


def splits(state: State) -> dict[str, Condition]:
    """Low over the floor, trunk upright, legs straight, feet 1.25 m apart to the sides (legs 90 degrees open or more).

    The joints let the legs open to about 140 degrees, and a leg may be raised to 0.45 m from where it is joined to the
    hip.
    """
    _, left, _ = _axes(state)
    apart = abs((state["right_foot"] - state["left_foot"]) @ left)
    return {
        "seat down": below(state["pelvis"][2], 0.29, 0.6),
        "feet down": below(max(state["right_foot"][2], state["left_foot"][2]), 0.45, 0.4),
        "feet apart": above(apart, 1.25, 1.1),
        "legs straight": below(max(knee_bends(state)), np.deg2rad(40), np.deg2rad(100)),
        "trunk upright": above(state["torso_up"][2], np.cos(np.deg2rad(45)), 0.8),
    }


def lotus(state: State) -> dict[str, Condition]:
    """Sitting, trunk upright, knees out and low, shins folded in with the feet near each other ahead of the seat.

    The joints do not let the shins lie flat: seated, the knees come down to 0.25 m.
    """
    forward, left, _ = _axes(state)
    feet = [state[f"{side}_foot"] for side in ("right", "left")]
    knees_apart = abs((state["right_knee"] - state["left_knee"]) @ left)
    return {
        "seat down": below(state["pelvis"][2], 0.27, 0.6),
        "trunk upright": above(state["torso_up"][2], np.cos(np.deg2rad(40)), 0.8),
        "knees low": below(max(state["right_knee"][2], state["left_knee"][2]), 0.365, 0.4),
        "knees apart": above(knees_apart, 0.4, 0.4),
        "shins folded": above(min(knee_bends(state)), np.deg2rad(95), np.deg2rad(95)),
        "feet together": below(float(np.linalg.norm(feet[0] - feet[1])), 0.4, 0.6),
        "feet ahead": above(min((foot - state["pelvis"]) @ forward for foot in feet), 0.05, 0.3),
    }


def knee_bends(state: State) -> tuple[float, float]:
    """Angle between thigh and shin of the right and the left leg in rad: 0 for a straight leg."""
    _, left, up = _axes(state)
    bends = []
    for side, sign in (("right", -1), ("left", 1)):
        hip = state["pelvis"] + sign * 0.1 * left - 0.04 * up  # where the thighs are joined to the pelvis
        thigh, shin = state[f"{side}_knee"] - hip, state[f"{side}_foot"] - state[f"{side}_knee"]
        cosine = (thigh @ shin) / (np.linalg.norm(thigh) * np.linalg.norm(shin))
        bends.append(float(np.arccos(np.clip(cosine, -1.0, 1.0))))
    return bends[0], bends[1]


def _axes(state: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit axes of the trunk in the world: forward, to its left, up."""
    forward, up = state["torso_forward"], state["torso_up"]
    return forward, np.cross(up, forward), up
