"""What vLLM calls when it starts (entry point `vllm.general_plugins`): from then on it knows our folders.

    minigpt4 export FOLDER
    vllm serve FOLDER

Nothing of vLLM is imported here: it is only starting, and reads `vllm_model` when it needs the model.
"""


def register() -> None:
    """Make the family known to vLLM, in each of its processes."""
    from vllm import ModelRegistry

    from ..model import MiniGPT4ForConditionalGeneration  # with it, `transformers` knows configuration and processor

    name = MiniGPT4ForConditionalGeneration.__name__
    if name not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(name, f"{__package__}.vllm_model:MiniGPT4ForVLLM")
