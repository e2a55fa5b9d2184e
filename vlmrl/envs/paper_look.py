"""The look of VLM-RM's pictures: sky, tiles and a robot's skin, painted here.

VLM-RM (Rocamonde et al. 2023, section 4.3) found that a scene nearer to photographs lifts kneeling from 36 % to 91 %
success. Its scene file says what was changed: a picture of a sky around the scene, a matt tiled floor, a robot's
texture on a white shiny body, one light from above. Its pictures are not copied: what follows paints others of the
same kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

SKIN = (0.8, 0.6, 0.4, 1.0)  # colour of Gymnasium's robots; parts of another colour keep theirs


def repaint(model: mujoco.MjModel) -> None:
    """Change textures, materials, colours and lights of one of Gymnasium's MuJoCo models, and nothing that moves.

    Call before the model's first picture: textures go to the graphics card then.

    Args:
        model: Has a sky box, a texture "texplane" with material "MatPlane" and a cube texture "texgeom".
    """
    import mujoco

    for texture in range(model.ntex):
        height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
        if model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            picture = sky(width)
        elif model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_2D:
            picture = tiles(width)
        else:
            picture = skin(width)
        assert picture.shape == (height, width, model.tex_nchannel[texture])
        start = int(model.tex_adr[texture])
        model.tex_data[start : start + picture.size] = picture.reshape(-1)
    floor, body = model.mat("MatPlane").id, model.mat("geom").id
    model.mat_reflectance[floor] = model.mat_specular[floor] = model.mat_shininess[floor] = 0.0
    model.mat_specular[body] = model.mat_shininess[body] = 1.0
    for geom in range(model.ngeom):
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
            model.geom_rgba[geom] = 1.0
            continue
        model.geom_matid[geom] = body
        if np.allclose(model.geom_rgba[geom], SKIN):
            model.geom_rgba[geom] = 1.0
    model.light_pos[0], model.light_dir[0] = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
    model.light_diffuse[0], model.light_specular[0] = 1.0, 0.5


def sky(width: int) -> np.ndarray:
    """Paint a blue sky with clouds on the six faces of a cube, without seams.

    Args:
        width: Side of a face in pixels.

    Returns:
        (6 * width, width, 3) uint8 RGB: right, left, up, down, front, back, as OpenGL orders and turns them.
    """
    direction = _cube(width)
    up = direction[..., 1]
    share = np.clip(up, 0.0, 1.0)[..., None] ** 0.6
    colour = (1 - share) * np.array([200.0, 222.0, 240.0]) + share * np.array([70.0, 130.0, 205.0])
    # Clouds are where a sum of waves over the sphere is high; they are flattened towards the horizon.
    clouds = _waves(direction * np.array([1.0, 2.2, 1.0]), seed=3, count=60, longest=1.1, shortest=0.16)
    cover = np.clip((clouds - 0.35) / 0.9, 0.0, 0.9)[..., None] * np.clip(up * 6, 0.0, 1.0)[..., None]
    colour = (1 - cover) * colour + cover * 250.0
    return np.where(up[..., None] < 0, 196.0, colour).round().astype(np.uint8)


def tiles(width: int) -> np.ndarray:
    """Paint four floor tiles with joints between them.

    Args:
        width: Side of the picture in pixels; it repeats without seams.

    Returns:
        (width, width, 3) uint8 RGB.
    """
    rng = np.random.default_rng(5)
    row, column = np.mgrid[0:width, 0:width] / width
    tone = np.array([[202.0, 190.0], [187.0, 206.0]])[(row * 2).astype(int), (column * 2).astype(int)]
    tone = tone + 3.0 * rng.standard_normal((width, width))
    joint = np.minimum((row * 2) % 1, (column * 2) % 1) < 0.06
    return np.where(joint, 120.0, tone)[..., None].repeat(3, axis=2).clip(0, 255).round().astype(np.uint8)


def skin(width: int) -> np.ndarray:
    """Paint metal plates with seams, bolts and dark joints on the six faces of a cube.

    Args:
        width: Side of a face in pixels.

    Returns:
        (6 * width, width, 3) uint8 RGB.
    """
    rng = np.random.default_rng(7)
    row, column = np.mgrid[0:width, 0:width] / width
    colour = (
        np.array([196.0, 201.0, 208.0]) + 14.0 * (row[..., None] - 0.5) + 4.0 * rng.standard_normal((width, width, 1))
    )
    seam = (np.abs((row * 3) % 1 - 0.5) > 0.46) | (np.abs((column * 2) % 1 - 0.5) > 0.47)
    colour[seam] = (74.0, 80.0, 90.0)
    bolt = np.hypot((row * 3) % 1 - 0.15, ((column * 2) % 1 - 0.12) * 1.5) < 0.07
    colour[bolt] = (110.0, 116.0, 126.0)
    stripe = np.abs(row - 0.5) < 0.045
    colour[stripe] = (52.0, 92.0, 150.0)
    return np.tile(colour.clip(0, 255).round().astype(np.uint8), (6, 1, 1))


def _cube(width: int) -> np.ndarray:
    """Unit direction of each pixel of a cube map, (6 * width, width, 3) with the second axis up, in OpenGL's order."""
    centre = (np.arange(width) + 0.5) / width * 2 - 1
    v, u = np.meshgrid(centre, centre, indexing="ij")
    one = np.ones_like(u)
    faces = ((one, -v, -u), (-one, -v, u), (u, one, v), (u, -one, -v), (u, -v, one), (-u, -v, -one))
    directions = np.concatenate([np.stack(face, axis=-1) for face in faces])
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def _waves(points: np.ndarray, seed: int, count: int, longest: float, shortest: float) -> np.ndarray:
    """Sum of plane waves of random direction and length, of unit variance, over (..., 3) points."""
    rng = np.random.default_rng(seed)
    total = np.zeros(points.shape[:-1])
    power = 0.0
    for _ in range(count):
        length = longest * (shortest / longest) ** rng.random()
        axis = rng.standard_normal(3)
        axis *= 2 * np.pi / (length * np.linalg.norm(axis))
        total += length * np.cos(points @ axis + rng.uniform(0, 2 * np.pi))
        power += length**2 / 2
    return total / np.sqrt(power)
