"""The timeline of an episode: a strip in the colors of the options that ran, step by step."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, ScaledTranslation, blended_transform_factory

from metarl.viz.style import Ints, option_colors

LEGEND_WIDTH = 0.9  # inches

_FUTURE = 0.94  # gray of the steps to come
_OFFSET = 29  # points from the bottom of a panel to that of its strip, labels included
_HEIGHT = 9  # points


class Timeline:
    """The strip of one episode, on axes of its own."""

    def __init__(self, axes: Axes, options: Ints, length: int):
        """`options` [T]; `length`: steps that the whole width stands for, T or more."""
        self._colors = option_colors(options)
        extent = (0, len(options), 0, 1)
        self._image = axes.imshow(
            self._colors[None], extent=extent, aspect="auto", interpolation="nearest"
        )
        axes.set(xlim=(0, length), yticks=[])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.tick_params(color="0.8", labelcolor="0.4", labelsize="x-small", length=2, pad=1)
        axes.spines[:].set_visible(False)

    def show(self, steps: int) -> None:
        """Color the first `steps` only."""
        colors = self._colors.copy()
        colors[steps:] = _FUTURE
        self._image.set_data(colors[None])


def add_strip(axes: Axes) -> Axes:
    """Axes for a strip as wide as the panel `axes`, below it and its labels."""
    figure = axes.get_figure()
    assert figure is not None
    # the type of the scale is too narrow: it may be any affine transform
    corner = ScaledTranslation(0, 0, axes.transAxes)  # type: ignore[arg-type]
    points = Affine2D().scale(1 / 72) + figure.dpi_scale_trans + corner
    transform = blended_transform_factory(axes.transAxes, points)
    strip = axes.inset_axes((0, -_OFFSET, 1, _HEIGHT), transform=transform)
    strip.set_xlabel("step", fontsize="x-small", color="0.4", labelpad=1)
    return strip


def draw_options_legend(figure: Figure, count: int) -> None:
    """The colors of `count` options, at the right of the picture."""
    patches = []
    for option, color in enumerate(option_colors(np.arange(count))):
        patches.append(Patch(facecolor=tuple(color), label=f"option {option}"))
    figure.legend(
        handles=patches,
        loc="outside right center",
        frameon=False,
        fontsize="small",
        handlelength=1,
        handleheight=1,
    )
