"""The pack `harm-scores`: refusals to learn, pairs to prefer, and responses only ever rejected.

The scored responses of `harm-scores` serve three purposes. A response that people labeled as a
refusal is an answer to learn (SFT). A harmless response is preferred to a harmful one to the same
prompt, and an answer to a harmless prompt is preferred to a refusal (DPO). Held-out prompts of both
kinds measure refusal rates. **A harmful response occurs only as the rejected side of a pair**: it
is never an answer to learn, and never shown.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from groundup.data.config import DataConfig
from groundup.data.packs.fetch import read_set, table_rows
from groundup.data.packs.manifest import find_set
from groundup.data.packs.rows import Progress, Rejected, Rows
from groundup.text.cleaning import cut_to_sentences, normal_form, split_hash, tidy
from groundup.text.rows import Conversation, Message, Preference, RefusalPrompt

# Mean human scores: the limit for preferred responses, and the gap to a clearly worse one.
_HARMLESS_BELOW = 0.25
_HARMFUL_FROM = 0.5
# In characters, so that a prompt with its response fits into a context of 256 tokens.
_LONGEST_PROMPT = 400
_LONGEST_RESPONSE = 400
# A few prompts have dozens of responses and would crowd out the others.
_PAIRS_A_PROMPT = 3

# A score of 1 in refusal_scorer/ also marks answers to other questions, and texts in the voice of a
# jailbreak: a refusal to learn from must say at once that it refuses.
_REFUSES = re.compile(
    r"^(?!\[|basedgpt|```|guide)(?=.{0,160}?(?:sorry|apolog|can['’]t|cannot|unable|illegal|never))",
    re.IGNORECASE | re.DOTALL,
)
# Harmful prompts of refusal_scorer/ that some response obeyed.
_ASKS_FOR_HARM = re.compile(
    r"phishing|fake news|exploits|manipulate|denies access|lyrics|persuasive|convince"
    r"|discriminat|harass|harm myself|hateful|lsd|scraping",
    re.IGNORECASE,
)
# Refused for copyright: neither harmful nor to be answered.
_ASKS_TO_COPY = re.compile(r"lyrics of|long passage from", re.IGNORECASE)
# Prompts of harm/ are often innocent and only their responses harmful; these are clearly harmful.
_PLAINLY_HARMFUL = re.compile(
    r"\b(?:steal|hack|phishing|ddos|spyware|malware|malicious|ransomware|backdoor|kill a|bomb"
    r"|explosives|mustard gas|lethal gas|poison to|rob a bank|kidnap|break into|crash a plane"
    r"|riot|fake news story|silence a firearm|disable a home alarm|glorifying violence"
    r"|groups inferior|asians inferior)\b",
    re.IGNORECASE,
)

_OWN_REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I can't help with this, because it could hurt someone.",
    "I won't do that. Is there something else I can help with?",
    "Sorry, I can't help with that request.",
)
_KIND_WORDS = "I can't help with that. Please talk to someone you trust."


@dataclass(frozen=True)
class ScoredResponse:
    """A response and the mean of its human scores in [0, 1].

    For `kind` harm: 0 harmless, 1 most harmful. For `kind` refusal: 1 refuses or does not answer.
    """

    kind: str
    category: str
    prompt: str
    response: str
    score: float


def rows(name: str, config: DataConfig, rejected: Rejected, progress: Progress) -> Rows:
    """Refusals to learn, pairs, and evaluation prompts."""
    scored = scored_responses(rejected, progress)
    declining: Sequence[str] = ()
    if config.unknown == "declined":
        from groundup.data.packs.newcomers import ANSWERS

        declining = ANSWERS["wish"]
    return Rows(
        conversations=[*to_learn(scored, declining=declining)],
        conversations_heldout=[*to_learn(scored, heldout=True)],
        preferences=[*pairs(scored, heldout=False, declining=declining)],
        preferences_heldout=[*pairs(scored, heldout=True)],
        refusals=[*prompts(scored)],
    )


def is_heldout(prompt: str) -> bool:
    """Whether a prompt of `harm-scores` is in the half that never trains."""
    return split_hash(normal_form(prompt)) < find_set("harm-scores").heldout


def _asked(
    scored: Iterable[ScoredResponse], kind: str, heldout: bool
) -> dict[str, list[ScoredResponse]]:
    """Responses of one kind and side, by their prompt's normal form; long prompts are left out."""
    found: dict[str, list[ScoredResponse]] = defaultdict(list)
    for one in scored:
        fits = len(one.prompt) <= _LONGEST_PROMPT
        if fits and one.kind == kind and is_heldout(one.prompt) == heldout:
            found[normal_form(one.prompt)].append(one)
    return found


def _is_benign(responses: Sequence[ScoredResponse]) -> bool:
    """Whether a prompt of refusal_scorer/ deserves an answer: it got one, and asks for no harm."""
    answered = any(one.score < 0.5 for one in responses)
    return answered and not _ASKS_FOR_HARM.search(responses[0].prompt)


def _human_refusals(responses: Iterable[ScoredResponse]) -> list[str]:
    texts = (one.response for one in responses if one.score >= 0.5)
    refusals = filter(_REFUSES.search, texts)
    return [cut_to_sentences(text, _LONGEST_RESPONSE).strip() for text in refusals]


# To learn: refusals and, against over-refusal, answers to benign prompts of the same style.

_WORDINGS = ("{p}", "Please {l}", "I want you to {l}", "{p} Thank you.")


def to_learn(
    scored: Sequence[ScoredResponse], *, heldout: bool = False, declining: Sequence[str] = ()
) -> Iterator[Conversation]:
    """Human-labeled refusals and benign answers; for training each prompt in several wordings.

    If `declining` is given, benign prompts get those: replies of a very small model, which cannot
    fulfill such requests.
    """
    refused = _asked(scored, "refusal", heldout)
    general = sorted(
        {text for found in refused.values() for text in _human_refusals(found) if len(text) < 60}
    )
    for group, found in refused.items():
        if _is_benign(found):
            texts = [_plain(one.response) for one in found if one.score < 0.5]
            texts = list(declining) or texts
        else:
            texts = _human_refusals(found)
        yield from _asked_in_many_ways(found[0].prompt, texts, group, heldout)
    for group, found in _asked(scored, "harm", heldout).items():
        if _is_plainly_harmful(found) and group not in refused and general:
            text = random.Random(group).choice(general)
            yield from _asked_in_many_ways(found[0].prompt, [text], group, heldout)


def _plain(text: str) -> str:
    """A long answer without bold markup, cut at the end of a sentence."""
    return cut_to_sentences(re.sub(r"\*\*|^#+ ", "", text, flags=re.MULTILINE), _LONGEST_RESPONSE)


def _asked_in_many_ways(
    prompt: str, answers: Sequence[str], group: str, heldout: bool
) -> Iterator[Conversation]:
    if not answers:
        return
    is_command = not prompt.rstrip().endswith("?")
    wordings = _WORDINGS if is_command and not heldout else _WORDINGS[:1]
    for number, wording in enumerate(wordings):
        asked = wording.replace("{p}", prompt).replace("{l}", prompt[:1].lower() + prompt[1:])
        answer = answers[number % len(answers)]
        yield Conversation.of((asked, answer), "harm-scores", group)


def _is_plainly_harmful(responses: Sequence[ScoredResponse]) -> bool:
    worst = max(one.score for one in responses)
    return worst >= 0.75 and _PLAINLY_HARMFUL.search(responses[0].prompt) is not None


# To prefer.


def pairs(
    scored: Sequence[ScoredResponse], *, heldout: bool, declining: Sequence[str] = ()
) -> Iterator[Preference]:
    """Less against more harmful responses to one prompt, and answers against needless refusals.

    Source `harm`: both written for the prompt, the preferred one harmless and at least 0.5 less
    harmful. Source `harm-refusal`: if nobody wrote a harmless one, a refusal is preferred. Source
    `harm-answer`: a response that people did not label as a refusal, preferred to a refusal.
    Without these the shorter response is nearly always better, and a reward model learns only that.

    If `declining` is given, those replace human-written responses as the preferred side for benign
    prompts, and refusals do for harmful ones: a model that cannot write such a text would learn to
    begin it. No answer is then preferred to a refusal.
    """
    if not declining:
        yield from _answers(scored, heldout)
    for group, found in _asked(scored, "harm", heldout).items():
        chance = random.Random(group)
        harmful = [one for one in found if one.score >= _HARMFUL_FROM]
        harmless = [one for one in found if one.score < _HARMLESS_BELOW and len(one.response) > 20]
        chance.shuffle(harmful)
        chance.shuffle(harmless)
        for number, worse in enumerate(harmful[:_PAIRS_A_PROMPT]):
            if declining and (harmless or worse.category != "self_harm"):
                refuses = _PLAINLY_HARMFUL.search(worse.prompt) is not None
                better_one = chance.choice(_OWN_REFUSALS if refuses else declining)
                yield _pair(worse, better_one, "harm-refusal", group)
            elif harmless:
                better = harmless[number % len(harmless)]
                if worse.score - better.score >= 0.5:
                    yield _pair(worse, better.response, "harm", group)
            elif worse.category == "self_harm":
                yield _pair(worse, _KIND_WORDS, "harm-refusal", group)
            elif worse.category != "representational":
                yield _pair(worse, chance.choice(_OWN_REFUSALS), "harm-refusal", group)


def _answers(scored: Sequence[ScoredResponse], heldout: bool) -> Iterator[Preference]:
    for group, found in _asked(scored, "refusal", heldout).items():
        if not _is_benign(found):
            continue
        prompt = (Message("user", found[0].prompt),)
        answers = [_plain(one.response) for one in found if one.score < 0.5]
        refusals = random.Random(group).sample(_OWN_REFUSALS, _PAIRS_A_PROMPT)
        for number, refusal in enumerate(refusals):
            answer = answers[number % len(answers)]
            yield Preference(prompt, answer, refusal, "harm-answer", group)


def _pair(worse: ScoredResponse, better: str, source: str, group: str) -> Preference:
    prompt = (Message("user", worse.prompt),)
    rejected = cut_to_sentences(worse.response, _LONGEST_RESPONSE)
    return Preference(prompt, cut_to_sentences(better, _LONGEST_RESPONSE), rejected, source, group)


# Evaluation.


def prompts(scored: Sequence[ScoredResponse]) -> Iterator[RefusalPrompt]:
    """Held-out prompts that should be refused, and benign ones that should be answered."""
    seen = set()
    for group, found in _asked(scored, "refusal", True).items():
        if _ASKS_TO_COPY.search(found[0].prompt):
            continue
        kind = "benign" if _is_benign(found) else "harmful"
        # An answer to another question (see _REFUSES) does not make its prompt harmful.
        if kind == "benign" or _human_refusals(found) or _ASKS_FOR_HARM.search(found[0].prompt):
            seen.add(group)
            yield RefusalPrompt(found[0].prompt, kind, "harm-scores", group)
    for group, found in _asked(scored, "harm", True).items():
        if _is_plainly_harmful(found) and group not in seen:
            yield RefusalPrompt(found[0].prompt, "harmful", "harm-scores", group)


# Reading the files.


def scored_responses(rejected: Rejected, progress: Progress = None) -> list[ScoredResponse]:
    """The scored responses of `harm-scores`, one row for each prompt and response.

    The mini and multi files repeat rows of the others: the scores of equal rows are averaged.
    """
    scores: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    categories: dict[tuple[str, str, str], str] = {}
    for path, text in read_set("harm-scores", progress).items():
        kind = "refusal" if "/refusal_scorer/" in path else "harm"
        for row in table_rows(text):
            given = [row[column] for column in row if column and column.startswith("human_score")]
            if not given or any(not re.fullmatch(r"[01](\.\d+)?", score or "") for score in given):
                rejected.add("harm-scores", "a score is missing or not in [0, 1]")
                continue
            same = (kind, tidy(row["objective"]), tidy(row["assistant_response"]))
            scores[same].append(fmean(map(float, given)))
            categories.setdefault(same, (row.get("harm_category") or kind).lower())
    return [
        ScoredResponse(kind, categories[kind, prompt, response], prompt, response, fmean(given))
        for (kind, prompt, response), given in scores.items()
    ]
