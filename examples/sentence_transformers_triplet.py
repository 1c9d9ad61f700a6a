"""sentence-transformers: anchors, positives and negatives of a triplet run, on a BERT of one tiny layer."""

import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
from sentence_transformers.sentence_transformer.losses import TripletLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

from gradflow import data
from gradflow.integrations.sentence_transformers import GradflowCallback


def main() -> None:
    """Train ten steps on lines of the Zen of Python; nothing is downloaded."""
    torch.manual_seed(0)
    lines = [line.lower() for line in data.zen().splitlines() if line]
    texts = {"anchor": lines[:8], "positive": lines[1:9], "negative": lines[11:19]}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(" ".join(lines).split()))]
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    gradients = GradflowCallback(columns=("anchor", "positive", "negative"))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder)
        BertTokenizer(str(Path(folder, "vocab.txt"))).save_pretrained(folder)
        model = SentenceTransformer(modules=[Transformer(folder), Pooling(16)], device="cpu")
        args = Arguments(folder, max_steps=10, report_to=[], use_cpu=True, save_strategy="no")
        given = {"train_dataset": Dataset.from_dict(texts), "loss": TripletLoss(model)}
        SentenceTransformerTrainer(model, args, callbacks=[gradients], **given).train()
    print(gradients.recording)


if __name__ == "__main__":
    main()
