"""`python -m controlnet_kit.training`: train a ControlNet for the embedded base."""

from .cli import main

if __name__ == "__main__":
    main()
