"""A Trainer with the callback, that keeps what the callback should tell."""

import json
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from provenance.integrations.huggingface import ProvenanceCallback

seen = []


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, index):
        seen.append(index)
        row = torch.arange(4) * index % 16
        return {"input_ids": row, "labels": row}


set_seed(0)
config = LlamaConfig(
    vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
)
arguments = TrainingArguments(
    output_dir=sys.argv[1],
    num_train_epochs=2,
    per_device_train_batch_size=8,
    data_seed=7,
    hub_token=sys.argv[2],
    logging_steps=1,
    save_steps=4,
    use_cpu=True,
    report_to="none",
    disable_tqdm=True,
    run_name=f"https://someone:{sys.argv[2]}@example.org/run",
)
callbacks = [ProvenanceCallback()] if len(sys.argv) == 3 else []
trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=Rows(), callbacks=callbacks)
trainer.train()
trainer.save_model(sys.argv[1])
json.dump(seen, sys.stdout)
