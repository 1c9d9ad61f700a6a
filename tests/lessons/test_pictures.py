import numpy as np
import pytest
import torch

from gradflow.errors import ShapeError
from gradflow.lessons import show


def test_each_row_has_its_name_and_its_images_in_order():
    ink = torch.rand(3, 1, 4, 5)
    figure = show(left=ink, right=1 - ink)
    assert [text.get_text() for text in figure.texts] == ["left", "right"]
    for ax, images in zip(figure.axes, (ink, 1 - ink), strict=True):
        strip = np.asarray(ax.images[0].get_array())
        for i, image in enumerate(images):  # ink is drawn dark; a gap of two pixels follows each image
            np.testing.assert_allclose(strip[:, 7 * i : 7 * i + 5], 1 - image[0], rtol=1e-6)


def test_ten_images_are_enough():
    figure = show(many=np.zeros((50, 8, 8)))
    assert figure.get_label() == "1 row of 10 images: many."
    assert figure.axes[0].images[0].get_array().shape == (8, 100)


@pytest.mark.parametrize("shape", [(8, 8), (2, 3, 8, 8), (0, 1, 8, 8)])
def test_what_is_no_batch_of_grey_images_is_refused(shape):
    with pytest.raises(ShapeError, match="'rows' has shape"):
        show(rows=np.zeros(shape))
