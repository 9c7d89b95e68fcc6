"""Adapters as anybody trains and saves them with PEFT alone."""

import peft
import torch
import transformers
from transformers import AutoTokenizer

CONFIGS = {
    "lora": lambda **more: peft.LoraConfig(r=4, lora_alpha=8, **more),
    "dora": lambda **more: peft.LoraConfig(r=4, use_dora=True, use_rslora=True, **more),
    "ia3": lambda **more: peft.IA3Config(**more),
    "loha": lambda **more: peft.LoHaConfig(r=4, target_modules=["query", "value"], **more),
    "lokr": lambda **more: peft.LoKrConfig(r=4, target_modules=["query", "value"], **more),
    "vera": lambda **more: peft.VeraConfig(r=8, target_modules=["query", "value"], **more),
    "adalora": lambda **more: peft.AdaLoraConfig(
        init_r=4, total_step=10, target_modules=["query", "value"], **more
    ),
    "oft": lambda **more: peft.OFTConfig(r=4, oft_block_size=0, target_modules=["query", "value"], **more),
}


def stock(folder, base, kind="lora", head="QuestionAnswering", labels=2, seed=0, **more):
    """(PEFT's own model with a decided adapter and head, its base's tokenizer); the adapter lies in the folder."""
    task = {"QuestionAnswering": "QUESTION_ANS", "SequenceClassification": "SEQ_CLS"}[head]
    torch.manual_seed(seed)
    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(base, num_labels=labels)
    model = peft.get_peft_model(model, CONFIGS[kind](**({"task_type": task} | more)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                scale = 1.0 if ".modules_to_save." in name else 0.05
                parameter.add_(scale * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return model.eval(), AutoTokenizer.from_pretrained(base)
