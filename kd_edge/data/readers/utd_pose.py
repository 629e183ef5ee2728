"""Draw the Kinect skeleton as coloured limbs in the depth camera's view."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kd_edge.packages import import_extra
from kd_edge.types import Float32

VERSION = 1
"""Version of the drawing and its position; part of the cache key."""

HEIGHT, WIDTH = 240, 320
FOCAL_PX = 285.0
CENTRED_M = 2.6

JOINTS = (
    "head", "shoulder_center", "spine", "hip_center",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_foot",
    "right_hip", "right_knee", "right_ankle", "right_foot",
)  # fmt: skip

LIMBS = (  # joint, joint, thickness in m, colour (R, G, B): left warm, right cold, trunk neutral
    (0, 1, 0.13, (250, 240, 120)), (1, 2, 0.16, (200, 200, 200)), (2, 3, 0.16, (150, 150, 150)),
    (1, 4, 0.10, (255, 150, 80)), (4, 5, 0.09, (255, 60, 30)), (5, 6, 0.08, (255, 0, 120)),
    (6, 7, 0.08, (255, 110, 190)), (3, 12, 0.12, (200, 120, 60)), (12, 13, 0.12, (190, 40, 20)),
    (13, 14, 0.10, (170, 110, 0)), (14, 15, 0.08, (220, 180, 30)),
    (1, 8, 0.10, (80, 150, 255)), (8, 9, 0.09, (30, 60, 255)), (9, 10, 0.08, (0, 200, 255)),
    (10, 11, 0.08, (120, 255, 255)), (3, 16, 0.12, (60, 120, 200)), (16, 17, 0.12, (20, 40, 190)),
    (17, 18, 0.10, (0, 130, 90)), (18, 19, 0.08, (40, 220, 130)),
)  # fmt: skip

_SHIFT = 4  # sub-pixel bits of OpenCV's drawing


def project(joints: npt.NDArray[np.floating]) -> Float32:
    """Project joints into the depth image.

    Args:
        joints: (..., 3) x, y, z in metres, y up, z away from the camera.

    Returns:
        (..., 2) float32 pixel coordinates u, v: ``u = 160 + 285 x/z``, ``v = 120 - 285 y/z``.
    """
    z = np.maximum(joints[..., 2], 0.1)
    u = WIDTH / 2 + FOCAL_PX * joints[..., 0] / z
    v = HEIGHT / 2 - FOCAL_PX * joints[..., 1] / z
    return np.stack([u, v], axis=-1).astype(np.float32)


def centred(joints: Float32) -> Float32:
    """Shift a movement so that the clip's mean hip centre is in the middle of the picture, 2.6 m away.

    The picture is 2.2 m high there: feet in lunges and some raised hands are cut off. Steps, squats and jumps remain.

    Args:
        joints: (T, 20, 3) float32, metres, in the depth camera's frame.
    """
    centre = np.array([0.0, 0.0, CENTRED_M], dtype=np.float32)
    shifted: Float32 = joints - joints[:, JOINTS.index("hip_center")].mean(axis=0) + centre
    return shifted


def render(joints: Float32) -> npt.NDArray[np.uint8]:
    """Draw a skeleton sequence, far limbs first, thicker when nearer.

    Args:
        joints: (T, 20, 3) float32, metres, in the depth camera's frame.

    Returns:
        (T, 240, 320, 3) uint8, black background.
    """
    cv2 = import_extra("cv2", "cpu")
    pixels = np.clip(project(joints), -WIDTH, 2 * WIDTH)
    points = np.round(pixels * (1 << _SHIFT)).astype(np.int32)
    images = np.zeros((len(joints), HEIGHT, WIDTH, 3), dtype=np.uint8)
    for image, frame, corners in zip(images, joints, points, strict=True):
        depth = np.maximum([frame[a, 2] + frame[b, 2] for a, b, _, _ in LIMBS], 0.2) / 2
        for limb in np.argsort(-depth, kind="stable"):
            a, b, metres, colour = LIMBS[limb]
            thickness = max(1, round(FOCAL_PX * metres / float(depth[limb])))
            cv2.line(image, corners[a].tolist(), corners[b].tolist(), colour, thickness, cv2.LINE_AA, _SHIFT)
    return images
