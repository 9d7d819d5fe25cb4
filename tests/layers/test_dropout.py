import numpy as np
import pytest

import caffe_lite
from caffe_lite.errors import NetError
from caffe_lite.layers.dropout import philox4x32
from tests.layers.layer_case import LayerCase

# Known answers of Philox4x32-10 from Random123's kat_vectors: counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def slow_philox(counter, key):
    """The algorithm as the paper states it, on Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(counter, key, words):
    counter, key, words = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    assert list(slow_philox(counter, key)) == words
    assert [int(word) for word in philox4x32(*(np.uint64(word) for word in (*counter, *key)))] == words


class TestDropoutInTraining(LayerCase):
    layer = {
        "0.5": 'type: "Dropout"',
        "0.3": 'type: "Dropout" dropout_param { dropout_ratio: 0.3 }',
        "unscaled": 'type: "Dropout" dropout_param { dropout_ratio: 0.7 scale_train: false }',
        "nothing dropped": 'type: "Dropout" dropout_param { dropout_ratio: 0 }',
    }

    def bottoms(self, rng):
        return {
            "map": [rng.normal(size=(2, 3, 4, 5)) + 3],
            "27 elements": [rng.normal(size=(3, 9)) + 3],
            "one": [np.array([2.0])],
            "no elements": [np.zeros((0, 3))],
        }

    def expected(self, x):
        p = self.param.dropout_param
        key = int(np.random.default_rng(self.rng_seed + 2).integers(0, 2**64, dtype=np.uint64))
        mask = np.zeros(x.size)
        for i in range(x.size):
            word = slow_philox((i // 4, 0, 0, 0), (key % 2**32, key >> 32))[i % 4]
            mask[i] = word > p.dropout_ratio * 2**32 or p.dropout_ratio == 0
        return x * mask.reshape(x.shape) * (1 / (1 - p.dropout_ratio) if p.scale_train else 1)

    def test_share_that_is_kept(self, device):
        for variant, kept in {"0.5": 0.5, "0.3": 0.7, "unscaled": 0.3, "nothing dropped": 1}.items():
            layer, bottoms, tops = self.build(device, [np.ones(40000)], variant)
            share = np.count_nonzero(self._run(layer, bottoms, tops)[0]) / 40000
            assert abs(share - kept) <= 5 * np.sqrt(kept * (1 - kept) / 40000)

    def test_the_seed_decides_and_every_forward_draws_anew(self, device):
        layer, bottoms, tops = self.build(device, [np.ones(1000)], "0.5")
        masks = []
        for _ in range(2):
            caffe_lite.set_random_seed(5)
            for _ in range(2):
                layer.forward(bottoms, tops)
                masks.append(device.to_host(tops[0].data) != 0)
        np.testing.assert_array_equal(masks[:2], masks[2:])
        assert 400 < np.count_nonzero(masks[0] != masks[1]) < 600

    def test_two_layers_drop_different_elements(self, device):
        caffe_lite.set_random_seed(5)
        masks = []
        for _ in range(2):
            layer, bottoms, tops = self.build(device, [np.ones(1000)], "0.5")
            layer.forward(bottoms, tops)
            masks.append(device.to_host(tops[0].data) != 0)
        assert 400 < np.count_nonzero(masks[0] != masks[1]) < 600

    def test_mask_takes_a_byte_for_each_element(self, device):
        layer, bottoms, tops = self.build(device, [np.ones(1000)], "0.5")
        layer.forward(bottoms, tops)
        assert layer.mask.data.nbytes == 1000

    @pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
    def test_ratio_is_checked(self, device, ratio):
        self.layer = f'type: "Dropout" dropout_param {{ dropout_ratio: {ratio} }}'
        with pytest.raises(NetError, match=r"dropout_ratio must be in \[0, 1\)"):
            self.build(device, [np.ones(2)])


class TestDropoutInTesting(LayerCase):
    phase = caffe_lite.TEST
    layer = TestDropoutInTraining.layer

    def bottoms(self, rng):
        return {"map": [rng.normal(size=(2, 3, 4))], "no elements": [np.zeros((0, 3))]}

    def expected(self, x):
        p = self.param.dropout_param
        return x if p.scale_train else x * (1 - p.dropout_ratio)

    def test_draws_nothing(self, device):
        layer, bottoms, tops = self.build(device, [np.ones(9)], "0.5")
        before = device.rng.bit_generator.state
        layer.forward(bottoms, tops)
        assert device.rng.bit_generator.state == before and layer.mask.count == 1
