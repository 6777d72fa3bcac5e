import numpy as np
import pytest

from golden.make import FILE, maps
from golden.networks import NETWORKS


@pytest.mark.parametrize("name", NETWORKS)
def test_the_maps_are_what_they_were(name):
    with np.load(FILE) as stored:
        expected = {words: stored[f"{name}/{words}"] for words in maps_of(stored.files, name)}
    found = maps(name)
    assert set(found) == set(expected)
    for words, values in found.items():
        unit = np.abs(expected[words]).max()
        assert unit > 0, words
        np.testing.assert_allclose(values / unit, expected[words] / unit, rtol=0, atol=1e-10, err_msg=words)


def maps_of(files, name):
    return [file.partition("/")[2] for file in files if file.partition("/")[0] == name]
