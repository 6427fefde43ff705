"""A Qwen2 with random weights and a tokenizer trained on the spot: vLLM loads it in seconds, offline.

python tests/live/tiny_model.py FOLDER [--wide]        needs torch, safetensors and tokenizers, as every vLLM has them

Four narrow layers, whose step costs less than the server around it; with --wide twelve layers of 100 M weights in all,
whose step is tens of milliseconds on a CPU, so that the engine and not its front is what a load waits for.
"""

import json
import sys
from pathlib import Path

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "use_sliding_window": False,
}
WIDE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "torch_dtype": "bfloat16",
}
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}<|assistant|>"
WORDS = "the quick brown fox jumps over the lazy dog while many replicas share one long queue of prompts"


ALPHABET = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]  # ASCII, a blank and a line's end as bytes are written


def make_tiny_model(folder: Path, *, wide: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | (WIDE if wide else {})
    config["vocab_size"] = vocabulary = _make_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    _make_weights(folder, config, vocabulary)


def _make_tokenizer(folder: Path) -> int:
    """Only ASCII, so that every token that the random model says is text at once. Gives how many there are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=ALPHABET,
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 50, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    about |= {"chat_template": TEMPLATE, "model_max_length": CONFIG["max_position_embeddings"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return int(tokenizer.get_vocab_size())


def _make_weights(folder: Path, config: dict, vocabulary: int) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(7)
    kind = getattr(torch, config["torch_dtype"])
    hidden, inner, heads, kv = (
        config[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    kv_width = hidden // heads * kv
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, width in (("q", hidden), ("k", kv_width), ("v", kv_width)):
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (width, hidden)
            shapes[f"{at}.self_attn.{name}_proj.bias"] = (width,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{at}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{at}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{at}.mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{at}.input_layernorm.weight"] = (hidden,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (hidden,)
    weights = {name: (torch.randn(*shape) * 0.05).to(kind) for name, shape in shapes.items()}
    weights |= {name: torch.ones(*shape).to(kind) for name, shape in shapes.items() if name.endswith("norm.weight")}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    make_tiny_model(Path(sys.argv[1]), wide="--wide" in sys.argv)
