import sys

import peft
import rows
import torch
from transformers import AutoModelForCausalLM

data, base, out = sys.argv[1:]
torch.manual_seed(0)
torch.set_num_threads(1)
adapter = peft.LoraConfig(
    r=2,
    lora_alpha=4,
    target_modules={"q_proj", "k_proj", "v_proj", "o_proj"},
    task_type=peft.TaskType.CAUSAL_LM,
)
model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), adapter)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
numbers = [[int(abs(cell) * 1000) % 16 for cell in row] for row in rows.read(data)]
for place in range(0, len(numbers), 16):
    batch = torch.tensor(numbers[place : place + 16])
    model(input_ids=batch, labels=batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained(out)
