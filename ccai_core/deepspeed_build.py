"""DeepSpeed's compiled parts: built by one process after the other, and never waited for in vain.

PyTorch compiles them when they are first used (a minute or two). A process that is killed meanwhile
leaves PyTorch's lock behind, for which every later training would wait for ever. So they are built
under a lock that the system takes back from the dead, in a folder that nobody else builds in.

    build("ShareMemCommBuilder")
"""

from __future__ import annotations

import os
import sys

from filelock import FileLock

from ccai_core.embedded import cache_directory
from ccai_core.types import fingerprint

COMMUNICATION = "ShareMemCommBuilder"
"""What processes on one machine without GPUs talk through."""
OPTIMIZER = "CPUAdamBuilder"
"""AdamW for optimizer states that are in the host's memory."""


def build(name: str) -> None:
    """Build a part by DeepSpeed's name of its builder, unless it is there or not for this device.

    Of several processes one builds, and the others find it built.
    """
    import deepspeed
    import torch
    from deepspeed.accelerator import get_accelerator

    # Paths and versions are in the compiler's command: another environment would build it again.
    environment = fingerprint([sys.prefix, torch.__version__, deepspeed.__version__])
    own = cache_directory() / "torch_extensions" / environment
    own.mkdir(parents=True, exist_ok=True)
    # What the user has set wins, and then is the user's to keep in order.
    if os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(own)) != str(own):
        return
    builder = get_accelerator().create_op_builder(name)
    if builder is None or not builder.is_compatible(verbose=False):
        return
    with FileLock(own / ".lock"):
        for left_over in own.glob("*/lock"):
            left_over.unlink()
        builder.load()
