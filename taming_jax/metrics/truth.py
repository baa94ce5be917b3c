"""How well pictures show what was asked for: what was read off them beside the truth.

    pictures --reader--> maps, as examples have them --these--> a figure for each one

All take what was asked first, what was found second, and give float64 [B]; NaN where a
picture has nothing to be right about, such as no box. Means leave these out.

Legend: B pictures, M objects, P points of each.
"""

import numpy as np

_TOLERANCE = 1  # pixel by which an edge may be off
_MARGIN = 0.1  # of the picture, around a box within which its object is looked for
_ENOUGH = 0.5  # IoU of a box that counts as found


def iou(asked: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Of class maps int [B,H,W]: mean over the classes that were asked for."""
    return np.array([_iou(*pair) for pair in zip(asked, found, strict=True)])


def depth_error(asked: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Of depth [B,H,W] in [0,1]: mean absolute error."""
    return np.abs(np.float64(asked) - found).mean((1, 2))


def edge_f_score(asked: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Of edges [B,H,W] in [0,1]: harmonic mean of precision and recall.

    An edge is where the value is above a half; a pixel counts as found within one
    pixel of it.
    """
    asked, found = asked > 0.5, found > 0.5
    right = (found & _grown(asked)).sum((1, 2)), found.sum((1, 2))
    seen = (asked & _grown(found)).sum((1, 2)), asked.sum((1, 2))
    precision, recall = (part / np.maximum(1, whole) for part, whole in (right, seen))
    score = 2 * precision * recall / np.maximum(1e-9, precision + recall)
    return np.where(asked.any((1, 2)), score, np.nan)


def boxes_found(
    boxes: np.ndarray, classes: np.ndarray, found: np.ndarray
) -> np.ndarray:
    """Which share of the boxes [B,M,4] asked for is there, by a class map [B,H,W].

    A box is there if around the pixels of its class, within it and a margin, lies a box
    that overlaps it by half (IoU). Class c of a box is c + 1 in the map; -1 is none.
    """
    shares = []
    for per_box, kinds, regions in zip(boxes, classes, found, strict=True):
        there = [
            _is_there(box, regions == kind + 1)
            for box, kind in zip(per_box, kinds, strict=True)
            if kind >= 0
        ]
        shares.append(np.mean(there) if there else np.nan)
    return np.array(shares)


def keypoint_error(asked: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Mean distance of keypoints in sight [B,M,P,3] to where they are read.

    In widths of the picture. `heat` [B,H,W,P] is highest where a point with this name
    is; each is looked for within a margin of where it should be.
    """
    size = heat.shape[1]
    places = (np.arange(size) + 0.5) / size
    errors = []
    for points, maps in zip(asked, heat, strict=True):
        far = []
        for x, y, p in ((x, y, p) for each in points for p, (x, y, s) in
                        enumerate(each) if s > 0.5):  # fmt: skip
            distance = np.hypot(places[:, None] - y, places[None] - x)
            near = np.where(distance <= _MARGIN, maps[..., p], -np.inf)
            far.append(distance.flat[np.argmax(near)])
        errors.append(np.mean(far) if far else np.nan)
    return np.array(errors)


def _iou(asked, found) -> float:
    shares = []
    for kind in np.unique(asked):
        there, read = asked == kind, found == kind
        shares.append((there & read).sum() / (there | read).sum())
    return float(np.mean(shares))


def _grown(edges: np.ndarray) -> np.ndarray:
    """True within `_TOLERANCE` pixels, also across corners."""
    height, width = edges.shape[1:]
    t = _TOLERANCE
    padded = np.pad(edges, ((0, 0), (t, t), (t, t)))
    shifts = range(2 * t + 1)
    parts = [padded[:, i : i + height, j : j + width] for i in shifts for j in shifts]
    return np.any(parts, axis=0)


def _is_there(box: np.ndarray, of_kind: np.ndarray) -> bool:
    """Whether a box around some of these pixels [H,W] overlaps the one asked for."""
    size = np.array(of_kind.shape[::-1] * 2)  # W, H, W, H
    first = np.maximum(0, np.floor((box[:2] - _MARGIN) * size[:2])).astype(int)
    last = np.ceil((box[2:] + _MARGIN) * size[:2]).astype(int)
    rows, columns = np.nonzero(of_kind[first[1] : last[1], first[0] : last[0]])
    if not len(rows):
        return False
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    seen = np.add(seen, np.tile(first, 2)) / size
    common = np.minimum(box[2:], seen[2:]) - np.maximum(box[:2], seen[:2])
    areas = [np.prod(each[2:] - each[:2]) for each in (box, seen)]
    both = np.prod(np.maximum(0, common))
    return bool(both / (sum(areas) - both) >= _ENOUGH)
