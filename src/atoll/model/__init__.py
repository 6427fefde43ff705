"""What must be served?"""

from atoll.model.card import Attention, AttentionKind, Encoder, Experts, ModelCard, Quantisation

__all__ = ["Attention", "AttentionKind", "Encoder", "Experts", "ModelCard", "Quantisation"]
