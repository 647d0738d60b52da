"""`python -m controlnet_kit.training --flags`: the same as `controlnet-kit train --flags`."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
