"""What must be served: ModelCard, with its Attention, Experts and Quantisation."""

from enum import StrEnum

from pydantic import Field

from atoll.documents import Document


class AttentionKind(StrEnum):
    FULL = "full"  # MHA, GQA and MQA: keys and values of `kv_heads` heads are cached
    MLA = "mla"  # DeepSeek's latent attention: one compressed vector is cached


class Attention(Document):
    """Heads and what a token leaves in the KV cache of one layer."""

    kind: AttentionKind = AttentionKind.FULL
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    kv_lora_rank: int = 0  # MLA: length of the compressed vector
    rope_head_dim: int = 0  # MLA: length of the shared rotary key
    sliding_window: int | None = None  # tokens, on `sliding_layers` of the layers
    sliding_layers: int = 0


class Experts(Document):
    """The mixture-of-experts part of a layer."""

    routed: int = Field(gt=0)
    active: int = Field(gt=0)
    shared: int = 0
    intermediate_size: int = Field(gt=0)
    shared_intermediate_size: int = 0
    dense_layers: int = 0  # layers with an ordinary MLP instead


class Quantisation(Document):
    """How the linear layers' weights are stored; `method` is None for plain bf16/fp16/fp32 weights."""

    method: str | None = None  # vLLM's word: fp8, awq, gptq, mxfp4, compressed-tensors, bitsandbytes
    weight_bits: float = 16
    activation_bits: int = 16  # 8 when the GEMMs run in fp8 or int8
    group_size: int | None = None


class ModelCard(Document):
    """The facts of a model's config.json (and, when there is one, its safetensors index)."""

    name: str
    architecture: str  # config.json's architectures[0]
    parameters: int
    active_parameters: int  # of a token's forward pass; equals parameters for a dense model
    weight_bytes: int  # as stored on disk and loaded at the stored precision
    weight_source: str = "config"  # "index" when the safetensors index gave weight_bytes
    layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    attention: Attention
    experts: Experts | None = None
    quantisation: Quantisation = Quantisation()
    dtype: str = "bfloat16"
    tied_embeddings: bool = False
    gated_mlp: bool = True
    max_context: int

    @property
    def attention_heads(self) -> int:
        return self.attention.heads

    @property
    def kv_heads(self) -> int:
        return self.attention.kv_heads

    @property
    def head_dim(self) -> int:
        return self.attention.head_dim
