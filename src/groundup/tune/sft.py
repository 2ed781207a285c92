"""Supervised fine-tuning: the first step of InstructGPT (Ouyang et al. 2022, section 3.5).

    minimise  - sum over the assistant's tokens of log p(token | all before it)

It is pre-training's very loss over other batches: conversations instead of documents, with weight 0
on everything the assistant did not say. Several conversations share a row and never see each other.
Where answers are short and prompts long, as in questions about a story, a small weight on the
prompt teaches more in the same time (Shi et al. 2024, Instruction Tuning With Loss Over
Instructions).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.evals.score import score, spread
from groundup.lm.card import model_card, sources
from groundup.lm.generate import Request, generate
from groundup.lm.hub import load
from groundup.lm.model import CausalLM
from groundup.lm.sample import Sampling
from groundup.lm.training import planned, train
from groundup.text.chat import encode_chat
from groundup.text.packing import ConversationStream, Marked
from groundup.text.records import Conversation, read_conversations, split
from groundup.text.tokenizer import Tokenizer
from groundup.train.loss import next_token_loss
from groundup.train.progress import say
from groundup.train.run import Run
from groundup.tune.config import SFTConfig

# Held-out conversations scored at each evaluation on the way.
_CURVE_CONVERSATIONS = 300
_QUESTION = "Who are you?"


def run(config: SFTConfig) -> Path:
    """Fine-tune by `config` and return the run folder, which is a model folder.

    Raises `UserError` for settings, data or a folder that cannot be used.
    """
    with Run.open(config.out, "sft", config, {"model": config.model, "data": config.data}) as run:
        if run.finished:
            return run.folder
        model, tokenizer = load(config.model)
        trained, heldout = split(config.data, "conversations", read_conversations)
        for line in trained.bad:
            say(str(line))
        context = model.config.max_position_embeddings
        stream = ConversationStream(
            [marked(tokenizer, row) for row in trained.rows],
            sources=[row.source for row in trained.rows],
            balance=config.balance,
            prompt_weight=config.prompt_weight,
            chained=config.chained,
            world=config.world,
            context=context,
            rows=config.rows,
            micro_rows=config.micro_rows,
            seed=config.seed,
        )
        held = [marked(tokenizer, row) for row in spread(heldout.rows, _CURVE_CONVERSATIONS)]
        plan = planned(
            config, run, model.config, rows_per_epoch=stream.rows_per_epoch, context=context
        )
        return train(
            run,
            plan,
            model,
            tokenizer,
            stream,
            next_token_loss,
            seed=config.seed,
            card=model_card(
                "A chat model fine-tuned by groundup",
                how=f"Supervised fine-tuning of {config.model} on conversations, loss on the "
                "assistant's tokens alone.",
                facts={"parameters": f"{plan.parameters:,}", "steps": plan.steps},
                data=sources(config.data),
                parent=str(config.model),
            ),
            evaluate=lambda step: _evaluate(run, model, tokenizer, held, step),
        )


def marked(tokenizer: Tokenizer, conversation: Conversation) -> Marked:
    """A conversation as tokens, with the assistant's marked."""
    messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
    tokens = encode_chat(tokenizer, messages)
    return Marked(tokens.ids, tokens.assistant)


def heldout_loss(model: CausalLM, held: Sequence[Marked]) -> float | None:
    """Nats per assistant token on held-out conversations; None when nothing is held out."""
    found = score(model, held, context=model.config.max_position_embeddings)
    count = sum(len(logprobs) for logprobs in found)
    return -float(sum(logprobs.sum() for logprobs in found)) / count if count else None


def _evaluate(
    run: Run, model: CausalLM, tokenizer: Tokenizer, held: Sequence[Marked], step: int
) -> dict[str, Any]:
    loss = heldout_loss(model, held)
    request = Request(
        messages=[{"role": "user", "content": _QUESTION}],
        sampling=Sampling(temperature=0.0, max_new_tokens=60),
    )
    [completion] = generate(model, [request], tokenizer)
    run.log("samples.jsonl", step=step, prompt=_QUESTION, text=completion.text)
    if loss is not None:
        say(f"{run.stage}  step {step}  held-out assistant loss {loss:.3f} nats a token")
    say(f"  {_QUESTION}  {completion.text}".replace("\n", " "))
    return {"heldout_loss": loss}
