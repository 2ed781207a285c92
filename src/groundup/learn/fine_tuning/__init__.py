"""Step 4: fine-tuning. A model learns from your own data, without forgetting the rest."""

from groundup.learn.exercise import Exercise

EXERCISES = (
    Exercise(
        "4.1",
        "masks",
        "Which tokens are trained",
        functions=("assistant_mask", "shifted"),
        minutes=20,
        difficulty=2,
        importance=5,
        makes="groundup sft trains on exactly the tokens that you marked",
    ),
    Exercise(
        "4.2",
        "lora",
        "LoRA",
        functions=("lora", "start", "merged"),
        minutes=20,
        difficulty=2,
        importance=5,
        makes="your own LoRA trains and merges adapters",
    ),
    Exercise(
        "4.3",
        "nf4",
        "NF4 and QLoRA",
        functions=("quantize", "pack", "dequantize"),
        minutes=30,
        difficulty=3,
        importance=4,
        makes="QLoRA trains an adapter on a model in your own four bits",
    ),
    Exercise(
        "4.4",
        "replay",
        "Own data, forgetting and replay",
        functions=("token_shares", "times_seen", "forgotten"),
        minutes=15,
        difficulty=1,
        importance=4,
        makes="groundup sft mixes your data with general text in your own shares",
    ),
    Exercise(
        "4.5",
        "worth_it",
        "When not to fine-tune",
        functions=("difference", "training_bytes", "worth_it"),
        minutes=20,
        difficulty=2,
        importance=5,
        makes="you know when a better prompt is enough, and what tuning would cost",
    ),
)
