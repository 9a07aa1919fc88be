"""The timeline of an episode: a strip in the colours of the options that ran, step by step."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, ScaledTranslation, Transform, blended_transform_factory
from numpy.typing import NDArray

from metarl.viz.style import option_colors

_TO_COME = 0.94  # grey of the steps that are not yet lived through
_BELOW, _HIGH = (
    29,
    9,
)  # points: from the foot of a panel, over its labels, to that of the strip; and its height


class Timeline:
    """The strip of one episode, on axes of its own."""

    def __init__(self, axes: Axes, options: NDArray[np.int64], length: int) -> None:
        """`options` [T]; `length`: steps that the whole width stands for, T or more."""
        self._colors = option_colors(options)
        self._image = axes.imshow(
            self._colors[None],
            extent=(0, len(options), 0, 1),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set(xlim=(0, length), yticks=[])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.tick_params(color="0.8", labelcolor="0.4", labelsize="x-small", length=2, pad=1)
        axes.spines[:].set_visible(False)

    def until(self, steps: int) -> None:
        """Show the first `steps` alone."""
        colors = self._colors.copy()
        colors[steps:] = _TO_COME
        self._image.set_data(colors[None])


def below(axes: Axes) -> Axes:
    """Axes for a strip as wide as the panel `axes`, below it and its labels."""
    figure = axes.get_figure()
    assert figure is not None
    points = Affine2D().scale(1 / 72) + figure.dpi_scale_trans + _foot(axes)
    strip = axes.inset_axes(
        (0, -_BELOW, 1, _HIGH), transform=blended_transform_factory(axes.transAxes, points)
    )
    strip.set_xlabel("step", fontsize="x-small", color="0.4", labelpad=1)
    return strip


def _foot(axes: Axes) -> Transform:
    """To the lower left corner of the panel, wherever it comes to stand."""
    return ScaledTranslation(0, 0, axes.transAxes)  # type: ignore[arg-type]  # its scale may be any affine transform


def options_legend(figure: Figure, count: int) -> None:
    """Which colour is which of `count` options, beside the picture."""
    colors = option_colors(np.arange(count))
    patches = [Patch(facecolor=tuple(color), label=f"option {o}") for o, color in enumerate(colors)]
    figure.legend(
        handles=patches,
        loc="outside right center",
        frameon=False,
        fontsize="small",
        handlelength=1,
        handleheight=1,
    )
