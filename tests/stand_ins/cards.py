"""A model too small to matter, for tests of what stands around one."""

from atoll.model.card import Attention, ModelCard


def small_card(*, max_context: int) -> ModelCard:
    return ModelCard(
        name="small",
        architecture="LlamaForCausalLM",
        parameters=1000,
        active_parameters=1000,
        weight_bytes=2000,
        layers=2,
        hidden_size=8,
        intermediate_size=16,
        vocab_size=100,
        attention=Attention(heads=2, kv_heads=1, head_dim=4),
        max_context=max_context,
    )
