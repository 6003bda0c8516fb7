from tests.server.conftest import arguments, vllm_config

__all__ = ["arguments", "vllm_config"]
