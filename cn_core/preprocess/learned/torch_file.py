"""Files of PyTorch's own format, into networks."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from torch import nn

from ...errors import CheckpointError, WeightsError
from ...files.checkpoint import load_strictly, read

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def filled(network: AnyNetwork, path: Path, *, inside: str = "state_dict") -> AnyNetwork:
    """The same network with a file's weights, as a detector has it: float32, in eval mode, without gradients.

    `inside` is the key under which the file may have them; DataParallel's prefix is dropped. Nothing in the file is
    executed. Raises WeightsError for a file that is damaged or does not fit.
    """
    # Counters of batch normalisation: older files have none, and nothing reads them here.
    counters = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    try:
        tensors = {key.removeprefix("module."): value for key, value in read(path, inside).tensors.items()}
        load_strictly(network, counters | tensors, name=path.name)
    except CheckpointError as error:
        raise WeightsError(str(error)) from error
    return network.float().eval().requires_grad_(False)
