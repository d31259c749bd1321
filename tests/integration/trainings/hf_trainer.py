import sys

import rows
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from provenance import current_run


class Report(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **others):
        if "loss" in logs:
            current_run().metric("loss", logs["loss"], step=state.global_step)


set_seed(0)
torch.set_num_threads(1)
numbers = [[int(abs(cell) * 1000) % 50 for cell in row] for row in rows.read(sys.argv[1])]
examples = [{"input_ids": row, "labels": row} for row in numbers]
config = LlamaConfig(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
)
arguments = TrainingArguments(
    output_dir=sys.argv[2],
    num_train_epochs=1,
    per_device_train_batch_size=16,
    logging_steps=1,
    save_steps=2,
    save_total_limit=1,
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
    seed=0,
)
trainer = Trainer(LlamaForCausalLM(config), arguments, train_dataset=examples, callbacks=[Report()])
trainer.train()
trainer.save_model()
