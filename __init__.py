"""ControlNet Kit: ControlNet for ComfyUI, and a trainer that makes new ones."""

__version__ = "0.1.0"

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI after import; host modules are imported here and not before."""
    from .nodes import ControlNetKitExtension

    return ControlNetKitExtension()
