"""Settings check themselves, and say what they allow."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.preprocess.settings import Settings, between, described, one_of


@dataclass(frozen=True, kw_only=True)
class Example(Settings):
    count: int = field(default=3, metadata=between(1, 5, "how many"))
    size: float = field(default=0.5, metadata=between(0.0, 1.0, "how large"))
    kind: str = field(default="a", metadata=one_of("ab", "which"))
    on: bool = field(default=False, metadata=described("whether"))


@pytest.mark.parametrize(
    "values",
    [{"count": 1}, {"count": np.int64(5)}, {"size": 1}, {"size": np.float32(0.25)}, {"kind": "b"}, {"on": True}],
)
def test_what_fields_allow(values):
    assert {key: getattr(Example(**values), key) for key in values} == values


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"count": 6}, "count is 6; it is a whole number from 1 to 5"),
        ({"count": 2.0}, "count is 2.0; it is a whole number"),
        ({"count": True}, "count is True"),
        ({"size": -0.1}, "size is -0.1; it is a number from 0.0 to 1.0"),
        ({"size": float("nan")}, "size is nan"),
        ({"size": "0.5"}, "size is '0.5'"),
        ({"kind": "c"}, "kind is 'c'; it is one of a, b"),
        ({"on": 1}, "on is 1; it is true or false"),
    ],
)
def test_what_they_do_not(values, expected):
    with pytest.raises(ControlNetKitError, match=expected):
        Example(**values)
