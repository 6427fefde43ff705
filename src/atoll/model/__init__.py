"""What must be served?"""

from atoll.model.card import Attention, AttentionKind, Experts, ModelCard, Quantisation

__all__ = ["Attention", "AttentionKind", "Experts", "ModelCard", "Quantisation"]
