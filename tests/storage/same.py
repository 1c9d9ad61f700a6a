"""Deep and bitwise comparison of records: arrays by dtype, shape and bytes, floats by their bits."""

import dataclasses
import struct
from collections.abc import Mapping

import numpy as np


def assert_same(a, b, at="step"):
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        assert list(a) == list(b), at
        for key in a:
            assert_same(a[key], b[key], f"{at}[{key!r}]")
        return
    assert type(a) is type(b), f"{at}: {type(a).__name__} became {type(b).__name__}"
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), at
    elif isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b), f"{at}: {a!r} became {b!r}"
    elif dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name), f"{at}.{field.name}")
    elif isinstance(a, tuple):
        assert len(a) == len(b), at
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{at}[{i}]")
    else:
        assert a == b, f"{at}: {a!r} became {b!r}"
