"""A base for adapters: a language model as its seed left it, with a tokenizer and its template."""

import sys

import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
words = tokenizers.models.WordLevel({f"w{number}": number for number in range(16)}, unk_token="w0")
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer(words), unk_token="w0", eos_token="w1", pad_token="w1"
)
tokenizer.chat_template = "{% for turn in messages %}{{ turn['content'] }} {% endfor %}"
config = LlamaConfig(
    vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
