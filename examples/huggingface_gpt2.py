"""Hugging Face: a GPT-2 reads and writes with one tied matrix. Which use moves it?"""

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from gradflow import data
from gradflow.integrations.transformers import GradflowCallback


def main() -> None:
    """Train ten steps on the Zen of Python, byte by byte."""
    torch.manual_seed(0)
    size = {"vocab_size": 128, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    codes = torch.tensor(list(data.zen().encode("ascii", "ignore")))
    pieces = [{"input_ids": piece, "labels": piece} for piece in codes[: 24 * 32].split(32)]

    gradients = GradflowCallback(branches={"input": "transformer.wte", "output": "lm_head"})
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, max_steps=10, report_to=[], use_cpu=True, save_strategy="no")
        with gradients:
            Trainer(model, args, train_dataset=pieces, callbacks=[gradients]).train()

    print(gradients.recording.last["transformer.wte.weight"])


if __name__ == "__main__":
    main()
