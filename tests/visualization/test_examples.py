import numpy as np
import torch
from einops import rearrange

from semhitok.data.transforms import to_float
from semhitok.metrics.rate import RatePoint
from semhitok.visualization.examples import Examples, draw_examples
from semhitok.visualization.rate_plot import COLOURS, draw_rate_plot


def holds(picture, part):
    """Whether the picture contains this (h,w,3) array."""
    height, width = part.shape[:2]
    rows, columns = np.nonzero((picture == part[0, 0]).all(-1))
    return any(np.array_equal(picture[y : y + height, x : x + width], part) for y, x in zip(rows, columns, strict=True))


def test_every_image_is_in_the_picture_pixel_by_pixel():
    images = torch.randint(0, 255, (3, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    copies = images.flip(-1)
    photographs, scenes = (Examples(to_float(images[:count]), to_float(copies[:count])) for count in (3, 1))
    groups = {"photographs": photographs, "scenes": scenes}
    picture = np.array(draw_examples(groups, title="title", subtitle="one\ntwo", tile=60, columns=2))
    for image in (*images, *copies):
        enlarged = rearrange(image, "c h w -> h w c").numpy().repeat(2, axis=0).repeat(2, axis=1)
        assert holds(picture, enlarged)


def test_rate_plot_places_points_in_order():
    curves = {
        "tokenizer": [RatePoint(800, 20.0, "")],
        "WebP": [RatePoint(1000, 22.0, ""), RatePoint(8000, 30.0, "")],
    }
    plot = np.array(draw_rate_plot(curves, title="title", subtitle="subtitle")).astype(int)
    assert plot.shape == (560, 900, 3)
    places = []
    for colour in COLOURS[:2]:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        rows, columns = np.nonzero((np.abs(plot - wanted).sum(-1) < 6)[:, 300:])  # right of the legend
        places.append((rows, columns))
    webp_rows, webp_columns = places[1]
    assert webp_rows[webp_columns.argmax()] < webp_rows[webp_columns.argmin()]  # rises to the right
    assert len(set(map(tuple, plot.reshape(-1, 3)))) > 20
