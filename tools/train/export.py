"""Writes trained weights as a Hugging Face style Idefics3 directory.

    python export.py --weights DIR/ema.pt --out ../../models/default [--check]
    python export.py --restore ../../models/default --weights DIR/start.pt    # the other way, to train on

`--check` loads the directory with transformers and compares logits, prompt ids
and pixel values with this trainer's own.
"""

import argparse
import json
import os

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import tokenizer
from model import Ocelli, Shape

CONTEXT = 512
TEMPLATE = ("<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
            "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
            "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
            "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
            "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")


def documents(shape: Shape):
    """The JSON files of the directory as {name: dict}."""
    tok, size = tokenizer.build()
    assert size == shape.vocab, "the weights belong to another vocabulary"
    ids = {t["content"]: t["id"] for t in tok["added_tokens"]}
    start, pad, end = ids["<|im_start|>"], ids["<|im_end|>"], ids["<end_of_utterance>"]
    config = {
        "architectures": ["Idefics3ForConditionalGeneration"], "model_type": "idefics3", "torch_dtype": "bfloat16",
        "image_token_id": ids["<image>"], "scale_factor": shape.shuffle, "tie_word_embeddings": False, "use_cache": True,
        "vocab_size": size, "bos_token_id": start, "eos_token_id": end, "pad_token_id": pad,
        "text_config": {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": size, "hidden_size": shape.hidden,
            "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "hidden_act": "silu", "rms_norm_eps": 1e-05,
            "rope_theta": shape.rope_theta, "rope_scaling": None, "max_position_embeddings": CONTEXT, "attention_bias": False,
            "mlp_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
            "bos_token_id": start, "eos_token_id": end, "pad_token_id": pad, "use_cache": True},
        "vision_config": {
            "model_type": "idefics3_vision", "hidden_size": shape.vision_hidden, "intermediate_size": shape.vision_ffn,
            "num_hidden_layers": shape.vision_layers, "num_attention_heads": shape.vision_hidden // shape.head_dim,
            "num_channels": 3, "image_size": shape.tile, "patch_size": shape.patch, "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-06, "attention_dropout": 0.0, "size": {"longest_edge": shape.tile},
            "max_image_size": {"longest_edge": shape.tile}},
    }
    preprocessor = {
        "image_processor_type": "Idefics3ImageProcessor", "processor_class": "Idefics3Processor", "do_convert_rgb": True,
        "do_image_splitting": False, "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 1, "rescale_factor": 1 / 255,
        "size": {"longest_edge": shape.tile}, "max_image_size": {"longest_edge": shape.tile}}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "processor_class": "Idefics3Processor", "add_prefix_space": False,
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in tok["added_tokens"]},
        "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
        "bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False, "legacy": False, "model_max_length": CONTEXT, "chat_template": TEMPLATE}
    return {
        "config.json": config, "preprocessor_config.json": preprocessor,
        "processor_config.json": {"image_seq_len": shape.image_tokens, "processor_class": "Idefics3Processor"},
        "generation_config.json": {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad, "do_sample": False},
        "chat_template.json": {"chat_template": TEMPLATE}, "tokenizer.json": tok, "tokenizer_config.json": tokenizer_config}


def write(weights, out, shape):
    """Writes the directory, the weights in bf16; every file appears whole."""
    os.makedirs(out, exist_ok=True)
    for name, value in documents(shape).items():
        path = os.path.join(out, name)
        with open(path + ".part", "w", encoding="utf-8") as f:
            json.dump(value, f, indent=1 if name == "tokenizer.json" else 2, ensure_ascii=False)
            f.write("\n")
        os.replace(path + ".part", path)
    path = os.path.join(out, "model.safetensors")
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in weights.items()}, path + ".part", metadata={"format": "pt"})
    os.chmod(path + ".part", 0o644)
    os.replace(path + ".part", path)


def shape_of(directory):
    """The `Shape` that a written directory describes."""
    c = json.load(open(os.path.join(directory, "config.json"), encoding="utf-8"))
    t, v = c["text_config"], c["vision_config"]
    return Shape(tile=v["image_size"], patch=v["patch_size"], shuffle=c["scale_factor"], vision_hidden=v["hidden_size"],
                 vision_layers=v["num_hidden_layers"], vision_ffn=v["intermediate_size"], hidden=t["hidden_size"],
                 layers=t["num_hidden_layers"], heads=t["num_attention_heads"], kv_heads=t["num_key_value_heads"],
                 ffn=t["intermediate_size"], vocab=t["vocab_size"], rope_theta=t["rope_theta"], head_dim=t["head_dim"])


def load(directory):
    """The model of a written directory in f32."""
    model = Ocelli(shape_of(directory))
    model.load_state_dict({k: v.float() for k, v in load_file(os.path.join(directory, "model.safetensors")).items()})
    return model.eval()


@torch.no_grad()
def check(directory):
    """Holds the directory against transformers: pixel values, prompt ids, logits."""
    from PIL import Image
    from transformers import AutoProcessor, Idefics3ForConditionalGeneration, Idefics3ImageProcessor

    import heldout
    shape = shape_of(directory)
    theirs = Idefics3ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    ours = load(directory)
    codec = tokenizer.Codec()
    y, x = np.mgrid[0:480, 0:640]
    image = Image.fromarray(np.stack([(7 * x + 3 * y) % 256, 255 * x // 639, 255 * y // 479], -1).astype(np.uint8))
    tile = heldout.preprocess(image, shape.tile)
    try:
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil as Processor
    except ImportError:
        Processor = Idefics3ImageProcessor
    processor = Processor.from_pretrained(directory)
    values = torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"]))
    mine = torch.tensor(tile).permute(2, 0, 1)[None].float() / 127.5 - 1
    print("pixel values: shape", tuple(values.shape), "largest difference", float((values[0] - mine).abs().max()))
    question = "Can you describe this image?"
    ids = codec.prefix(shape.image_tokens) + codec.turn(question)
    try:
        p = AutoProcessor.from_pretrained(directory)
        text = p.apply_chat_template([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}], add_generation_prompt=True)
        print("prompt:", repr(text))
        full = p(text=text, images=[image])
        print("prompt ids equal:", list(full["input_ids"][0]) == ids)
    except Exception as e:
        print("the processor of this transformers version did not load:", e)
    n = len(ids)
    _, tokens = ours.see(mine)
    bias = torch.zeros(n, n).masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -30000.0)[None, None]
    a = ours.lm_head(ours.say(tokens, torch.tensor([ids]), torch.arange(n)[None], bias, ids.index(codec.image)))
    b = theirs(input_ids=torch.tensor([ids]), pixel_values=mine[None], attention_mask=torch.ones(1, n, dtype=torch.long)).logits
    difference = float((a - b).abs().max())
    print("logits: largest difference", difference, "of", float(b.abs().max()))
    assert difference < 2e-3 * max(1.0, float(b.abs().max())), "logits differ from transformers"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--weights", required=True, help="ema.pt of a training run, or with --restore the checkpoint to write")
    ap.add_argument("--out", help="the directory to write")
    ap.add_argument("--restore", metavar="DIR", help="write a checkpoint that train.py --resume takes, with new training heads")
    ap.add_argument("--check", action="store_true")
    args = ap.parse_args()
    if args.restore:
        import render
        from model import Heads
        model = load(args.restore)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        torch.save(dict(model=state, ema=state, heads=Heads(model.shape, render.CLASSES, render.ORDERS).state_dict(),
                        step=0, seen=0, elapsed=0.0), args.weights)
    elif args.out:
        weights = torch.load(args.weights, weights_only=True)
        shape = Shape(vocab=tokenizer.build()[1])
        write(weights, args.out, shape)
        size = os.path.getsize(os.path.join(args.out, "model.safetensors"))
        print(sum(v.numel() for v in weights.values()) / 1e6, "M parameters,", size, "bytes")
    if args.check and args.out:
        check(args.out)


if __name__ == "__main__":
    main()
