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
    q_lora_rank: int = 0  # MLA: the queries' own compression; 0 without one
    rope_head_dim: int = 0  # MLA: length of the shared rotary key
    value_head_dim: int = 0  # MLA: length of a head's value; 0: head_dim
    sliding_window: int | None = None  # tokens, on `sliding_layers` of the layers
    sliding_layers: int = 0
    chunked: bool = False  # the window begins anew every `sliding_window` tokens (Llama 4)
    global_kv_heads: int | None = None  # of the layers that see everything, where theirs differ (Gemma 4)
    global_head_dim: int | None = None
    index_bytes: int = 0  # of a token in one layer, beside its keys and values (DeepSeek-V3.2's indexer)
    index_heads: int = 0
    index_head_dim: int = 0
    packed_bytes: int | None = None  # of a token's vector in one layer, where the engine packs it in an 8-bit cache
    linear_layers: int = 0  # layers with linear attention or a state space: their state does not grow with the context
    attending_layers: int | None = None  # layers with keys and values; None: all but `linear_layers`
    linear_state_bytes: int = 0  # of one sequence in one such layer
    bias: bool = False  # on the query, key and value projections
    output_gate: bool = False  # the query projection also makes a gate of its own size (Qwen3-Next)


class Experts(Document):
    """The mixture-of-experts part of a layer."""

    routed: int = Field(gt=0)
    active: int = Field(gt=0)
    shared: int = 0
    intermediate_size: int = Field(gt=0)
    shared_intermediate_size: int = 0
    dense_layers: int = 0  # layers with an ordinary MLP instead


class Encoder(Document):
    """What turns images into tokens, loaded beside the language model and run once before the KV cache is sized."""

    parameters: int
    hidden_size: int = Field(gt=0)
    patches_a_token: int = 1
    largest_tokens: int = Field(gt=0)  # of one image or video, at most
    patch_values: int  # of the picture itself, in one patch
    widths: float = Field(gt=0)  # rows of `hidden_size` that a patch takes at the encoder's peak
    split_widths: float = 0.0  # and those that tensor parallelism splits


class Quantisation(Document):
    """How the linear layers' weights are stored; `method` is None for plain bf16/fp16/fp32 weights."""

    method: str | None = None  # vLLM's word: fp8, awq, gptq, mxfp4, compressed-tensors, bitsandbytes
    weight_bits: float = 16
    activation_bits: int = 16  # 8 when the GEMMs run in fp8 or int8
    group_size: int | None = None  # input channels that share a scale: a TP slice must hold whole groups
    block_size: tuple[int, int] | None = None  # fp8 in blocks (output x input channels), as DeepSeek and Qwen3-FP8
    skips: tuple[str, ...] = ()  # parts left at the model's dtype: "attention", "mlp", "experts", "shared_experts"
    plain_shares: tuple[tuple[str, float], ...] = ()  # of a part's weights, how much is left so, where any is
    kv_dtype: str | None = None  # "fp8" when the checkpoint asks for an fp8 KV cache

    def plain_share(self, part: str) -> float:
        """How much of a part's weights is left at the model's dtype."""
        return 1.0 if self.method is None else dict(self.plain_shares).get(part, 0.0)

    @property
    def stored_bits(self) -> float:
        """Bits a weight takes on disk, its scales and zero points included.

        int4 with groups of 128 takes 4 + (16 + 4) / 128 = 4.16: an fp16 scale and a packed zero point a group, as
        AutoAWQ and GPTQModel write them. mxfp4 takes 4.25 (one 8-bit exponent for 32 weights, OCP Microscaling v1.0),
        nvfp4 4.5.
        """
        if self.method is None or self.group_size is None:
            return self.weight_bits
        if self.method in {"mxfp4", "nvfp4"}:
            return self.weight_bits + 8 / self.group_size
        return self.weight_bits + (16 + self.weight_bits) / self.group_size


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
    encoder: Encoder | None = None  # counted in parameters and weight_bytes
    position_bytes: int = 0  # rotary tables, whole on every GPU; not in weight_bytes
    embedding_parameters: int = 0  # input and output embeddings, which no common method quantises
    notes: tuple[str, ...] = ()  # what the reader of this config should know: what was guessed or left out

    @property
    def attention_heads(self) -> int:
        return self.attention.heads

    @property
    def kv_layers(self) -> int:
        """Layers that keep keys and values of every token, or of a window of them."""
        attending = self.attention.attending_layers
        return self.layers - self.attention.linear_layers if attending is None else attending

    @property
    def kv_heads(self) -> int:
        return self.attention.kv_heads

    @property
    def head_dim(self) -> int:
        return self.attention.head_dim
