"""One checkpoint of the demonstration pair as the two GGUF files that llama.cpp loads, for a real server to ask.

usage: demo_gguf.py FOLDER OUT_DIR     (needs gguf==0.19.0, numpy and safetensors)

    llama-server -m OUT_DIR/model.gguf --mmproj OUT_DIR/mmproj.gguf --image-min-tokens 1 --port 8091

All weights stay f32. Names and keys are those of llama.cpp's architecture `qwen2vl` and projector `qwen2.5vl_merger`.
"""

import json
import pathlib
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

TEXT = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
VISION = {
    "attn.proj": "attn_out",
    "norm1": "ln1",
    "norm2": "ln2",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
MERGER = {"merger.ln_q": "v.post_ln", "merger.mlp.0": "mm.0", "merger.mlp.2": "mm.2"}


def read(folder, name):
    return json.loads((folder / name).read_text())


def weights(folder):
    """Text weights by their names within the language model, visual ones behind `visual.`."""
    found = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.removeprefix("model.").removeprefix("language_model.")
        found[name] = np.ascontiguousarray(tensor.astype(np.float32))
    return found


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def vocabulary(writer, folder, config, size):
    tokenizer, settings = read(folder, "tokenizer.json"), read(folder, "tokenizer_config.json")
    names = {id: token for token, id in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(names, gguf.TokenType.NORMAL)
    for token in tokenizer["added_tokens"]:
        names[token["id"]] = token["content"]
        kinds[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([names.get(id, f"[PAD{id}]") for id in range(size)])
    writer.add_token_types([kinds.get(id, gguf.TokenType.UNUSED) for id in range(size)])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["bos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])


def language_model(folder, path, tensors):
    config = read(folder, "config.json")["text_config"]
    rope = config["rope_parameters"]
    writer = gguf.GGUFWriter(path, "qwen2vl")
    writer.add_name(folder.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_sections(rope["mrope_section"] + [0])
    vocabulary(writer, folder, config, len(tensors["embed_tokens.weight"]))
    whole = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    for name, tensor in tensors.items():
        if name in whole:
            writer.add_tensor(whole[name], tensor)
        elif name.startswith("layers."):
            _, layer, rest = name.split(".", 2)
            part, leaf = rest.rsplit(".", 1)
            writer.add_tensor(f"blk.{layer}.{TEXT[part]}.{leaf}", tensor)
    finish(writer)


def tower(folder, path, tensors):
    config, processor = read(folder, "config.json"), read(folder, "preprocessor_config.json")
    vision = config["vision_config"]
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.QWEN25VL)
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    # Where frames have other sizes this is not used.
    writer.add_vision_image_size(560)
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_spatial_merge_size(vision["spatial_merge_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["depth"])
    writer.add_vision_head_count(vision["num_heads"])
    writer.add_vision_image_mean(processor["image_mean"])
    writer.add_vision_image_std(processor["image_std"])
    writer.add_vision_use_silu(True)
    writer.add_vision_n_wa_pattern(vision["fullatt_block_indexes"][0] + 1)
    writer.add_vision_attention_layernorm_eps(1e-6)
    for name, tensor in tensors.items():
        if not name.startswith("visual."):
            continue
        part, leaf = name.removeprefix("visual.").rsplit(".", 1)
        if part == "patch_embed.proj":
            # One kernel for each of the two frames that a patch spans.
            for number, suffix in enumerate(["", ".1"]):
                writer.add_tensor(f"v.patch_embd.weight{suffix}", np.ascontiguousarray(tensor[:, :, number]))
        elif part in MERGER:
            writer.add_tensor(f"{MERGER[part]}.{leaf}", tensor)
        else:
            _, layer, part = part.split(".", 2)
            thirds = zip("qkv", np.split(tensor, 3)) if part == "attn.qkv" else []
            for letter, third in thirds:
                writer.add_tensor(f"v.blk.{layer}.attn_{letter}.{leaf}", np.ascontiguousarray(third))
            if part != "attn.qkv":
                writer.add_tensor(f"v.blk.{layer}.{VISION[part]}.{leaf}", tensor)
    finish(writer)


def main(folder, out):
    out.mkdir(parents=True, exist_ok=True)
    tensors = weights(folder)
    language_model(folder, out / "model.gguf", tensors)
    tower(folder, out / "mmproj.gguf", tensors)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
