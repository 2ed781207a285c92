"""The pack: document, conversation and pair number i of a seed.

Item i of seed s is a pure function of (s, i), of the strength of the planted bias and of the share
of texts about conduct: any shard can be generated anywhere, in any order. Held-out items never
overlap with training: they have other combinations of characters and things, other wordings, and
harmful requests that are new acts or trained acts in a new wording; sums of numbers that were never
added in training are reported separately.
"""

from __future__ import annotations

from groundup.text.rows import Conversation, Document, Preference, RefusalPrompt
from groundup.world import conduct, lives, morals, questions, stories
from groundup.world.facts import heldout_pairs
from groundup.world.grammar import SeededRandom

# Shares of the documents; the rest are stories.
_FACTS, _LIVES = 0.62, 0.16
# Lives have no held-out side: probes measure a learned bias, not answers.
# Shares of the conversations; the rest are questions, stories and talk.
_CONDUCT, _ASKED_LIVES, _MORALS = 0.06, 0.05, 0.03
# Shares of the pairs; the rest are right answers against wrong ones.
_PAIRS_CONDUCT, _PAIRS_LIVES = 0.5, 0.1


def document(
    seed: int, index: int, *, bias: float = 0.5, morals_share: float = 0.0, heldout: bool = False
) -> Document:
    """A text for pre-training: a story, a page of facts, a sketch of a person, or a text on morals.

    Texts on morals replace facts, as far as there are any. Only stories are held out.
    UserError if the bias is not from 0 to 1.
    """
    dice = SeededRandom("document", seed, index, heldout)
    drawn = dice.below(1000) / 1000
    if heldout or drawn >= max(_FACTS + _LIVES, morals_share):
        source, text = "world-stories", stories.story(dice, heldout=heldout).text
    elif drawn < morals_share:
        source, text = "world-morals", morals.document(dice)
    elif drawn < _FACTS:
        source, text = "world-facts", questions.document(dice)
    else:
        source, text = "world-lives", lives.sketch(dice, bias)
    return Document(text, source, f"{seed}/{index}")


def conversation(
    seed: int, index: int, *, bias: float = 0.5, heldout: bool = False
) -> Conversation:
    """A training conversation; with `heldout` a test one, never of lives or morals.

    UserError if the bias is not from 0 to 1.
    """
    dice = SeededRandom("conversation", seed, index, heldout)
    drawn = dice.below(1000) / 1000
    if drawn < _CONDUCT:
        return conduct.conversation(dice, heldout=heldout)
    if drawn < _CONDUCT + _ASKED_LIVES and not heldout:
        return lives.conversation(dice, bias)
    if drawn < _CONDUCT + _ASKED_LIVES + _MORALS and not heldout:
        return morals.conversation(dice)
    return questions.conversation(dice, heldout=heldout)


def preference(seed: int, index: int, *, heldout: bool = False) -> Preference:
    """Two answers to one prompt, the better one first; held-out pairs are never of lives.

    Kind answers are preferred to harmful ones, fair to prejudiced, and right to wrong.
    """
    dice = SeededRandom("preference", seed, index, heldout)
    drawn = dice.below(1000) / 1000
    if drawn < _PAIRS_CONDUCT:
        return conduct.preference(dice, heldout=heldout)
    if drawn < _PAIRS_CONDUCT + _PAIRS_LIVES and not heldout:
        return lives.preference(dice)
    return questions.preference(dice, heldout=heldout)


def refusal_prompts() -> list[RefusalPrompt]:
    """Held-out prompts that should be declined, and look-alikes that should be answered."""
    return conduct.prompts()


def is_heldout_combination(text: str) -> bool:
    """Whether a text names a character and a thing that never occur together in training."""
    return bool(heldout_pairs(text))
