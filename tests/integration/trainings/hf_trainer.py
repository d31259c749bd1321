import sys

import rows
import tokenizers
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
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
words = tokenizers.models.WordLevel({f"w{number}": number for number in range(16)}, unk_token="w0")
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=tokenizers.Tokenizer(words), unk_token="w0", eos_token="w1", pad_token="w1"
)
tokenizer.chat_template = "{% for turn in messages %}{{ turn['content'] }} {% endfor %}"
numbers = [[int(abs(cell) * 1000) % 16 for cell in row] for row in rows.read(sys.argv[1])]
examples = [{"input_ids": row, "labels": row} for row in numbers]
config = LlamaConfig(
    vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
)
arguments = TrainingArguments(
    output_dir=sys.argv[2],
    num_train_epochs=1,
    per_device_train_batch_size=16,
    logging_steps=2,
    eval_strategy="steps",
    eval_steps=2,
    save_steps=2,
    save_total_limit=1,
    load_best_model_at_end=True,
    report_to="none",
    use_cpu=True,
    disable_tqdm=True,
    seed=0,
)
trainer = Trainer(
    LlamaForCausalLM(config),
    arguments,
    train_dataset=examples,
    eval_dataset=examples[:16],
    processing_class=tokenizer,
    callbacks=[Report()],
)
result = trainer.train()
trainer.save_model()
trainer.save_metrics("train", result.metrics)
trainer.save_metrics("eval", trainer.evaluate())
trainer.save_state()
trainer.create_model_card()
