"""Questions about articles, dialogues, and the model's statements about itself."""

from __future__ import annotations

from groundup.data.packs import chatterbot, harm_scores, own, questions, wiki
from groundup.data.packs.chatterbot import Dialogue
from groundup.data.packs.harm_scores import ScoredResponse, scored_responses
from groundup.data.packs.questions import Question
from groundup.data.packs.rows import Rejected
from groundup.data.packs.wiki import Article, articles
from groundup.text.cleaning import normal_form
from groundup.text.rows import Conversation
from groundup.world import gold
from groundup.world.kinds import KINDS


def _asked(found: list[Conversation]) -> set[str]:
    return {m.content for one in found for m in one.messages if m.role == "user"}


def test_questions_about_articles_are_good_english() -> None:
    some = [
        Article("Shirt", "A shirt is a garment. It has sleeves.", "Garment", "Everyday life"),
        Article("Ada Lovelace", "Ada Lovelace was a writer. She wrote.", "", "People"),
        Article("Cloud", "Clouds are drops of water. They float.", "", "Physical sciences"),
        Article("Table (furniture)", "A table is a plate on legs.", "", "Everyday life"),
        Article("Desert", "A desert is dry.", "", "Uncategorized"),
        Article("Oslo", "Oslo is a city in Norway. Many live there.", "", "Geography"),
    ]
    found = list(wiki.about_articles(some, 3, 0, several_turns=False))
    asked = _asked(found)
    assert {
        "What is a shirt?",
        "Who was Ada Lovelace?",
        "What are clouds?",
        "What is a table (furniture)?",
        "What is Oslo?",
    } <= asked
    assert not any("desert" in question.lower() for question in asked)
    answers = {one.messages[0].content: one.messages[1].content for one in found}
    assert answers["Who was Ada Lovelace?"] == "Ada Lovelace was a writer. She wrote."
    assert {one.group for one in found if "shirt" in one.messages[0].content} == {"shirt"}


def test_answers_about_articles_equal_the_articles_words() -> None:
    some = [article for article in articles(Rejected()) if article.topic != "Uncategorized"][::20]
    by_title = {normal_form(article.title): article for article in some}
    found = list(wiki.about_articles(some, 3, 0))
    assert len(found) > 3 * 0.9 * len(some)
    assert any(len(one.messages) >= 4 for one in found)
    for one in found:
        if len(one.messages) == 2:
            article = by_title[one.group]
            extract = article.extract.replace("\n", " ")
            answer = one.messages[1].content
            assert extract.startswith(answer) or answer[1:-1] == article.description[1:]
        assert all(len(m.content) <= 600 for m in one.messages if m.role == "assistant")


def test_the_model_says_that_it_is_one() -> None:
    found = list(own.about_itself())
    subjects = {one.group for one in found}
    assert len(subjects) >= 12 + 2
    answers = " ".join(m.content for one in found for m in one.messages if m.role == "assistant")
    for truth in ("small language model", "trained", "often wrong", "cannot go online"):
        assert truth in answers


def test_statements_about_itself_are_right_by_gold() -> None:
    judged = [
        (one, gold.judge(one.messages[:-1], one.messages[-1].content).correct)
        for declines in (True, False)
        for one in own.about_itself(declines=declines)
    ]
    assert not [one for one, correct in judged if correct not in (None, 1.0)]
    assert sum(correct == 1.0 for _, correct in judged) > 100


def test_questions_about_itself_are_no_held_out_wordings_of_the_world() -> None:
    held = {normal_form(form) for kind in KINDS for form in kind.heldout}
    assert normal_form("Are you a person?") in held
    asked = {normal_form(m.content) for one in own.about_itself() for m in one.messages[::2]}
    assert len(asked) > 50 and not asked & held


def test_robot_dialogues_do_not_contradict_it() -> None:
    some = [
        Dialogue("conversations", ("Who are you?", "A man in a mask.")),
        Dialogue("greetings", ("Hello.", "Hi.")),
        *(Dialogue("trivia", (f"Question {n}?", "Answer.")) for n in range(200)),
    ]
    train, heldout = chatterbot.from_dialogues(some)
    assert "Who are you?" not in _asked(train + heldout)
    assert "Hello." in _asked(train)
    assert 5 < len(heldout) < 40
    assert not {one.group for one in train} & {one.group for one in heldout}


SOCIAL = Question("siqa", "Why?", "Ann left. She ran.", "", ("a", "b", "c"), 1)


def test_a_prompt_is_on_one_side_of_every_kind() -> None:
    (choice,) = questions.choices([SOCIAL])
    plain, listed = questions.answered([SOCIAL], 0)
    pairs = list(questions.preferences([SOCIAL], 2, 0))
    assert choice.prompt == plain.messages[0].content == pairs[0].prompt[0].content
    assert choice.prompt == "Ann left. She ran.\n\nWhy?"
    assert listed.messages[0].content.endswith("Choose one:\n- a\n- b\n- c")
    assert {pair.rejected for pair in pairs} == {"a", "c"}
    assert {pair.chosen for pair in pairs} == {plain.messages[1].content} == {"b"}


def test_a_long_passage_is_cut_at_a_sentence() -> None:
    passage = " ".join(f"Sentence number {n} is here." for n in range(100))
    prompt = questions.choice_prompt("Is it?", passage)
    assert len(prompt) < 620 and prompt.endswith("is here.\n\nIs it?")


def _scored(kind: str, prompt: str, response: str, score: float) -> ScoredResponse:
    return ScoredResponse(kind, "violence", prompt, response, score)


def _training_prompt(text: str) -> str:
    return next(p for n in range(50) if not harm_scores.is_heldout(p := f"{text} {n}"))


def test_pairs_prefer_the_clearly_less_harmful_answer() -> None:
    prompt = _training_prompt("How do I rob a bank")
    harm = [
        _scored("harm", prompt, "You should not do this, it is a crime.", 0.0),
        _scored("harm", prompt, "Somewhat bad advice that is in between.", 0.3),
        _scored("harm", prompt, "Terrible advice.", 1.0),
    ]
    (pair,) = harm_scores.pairs(harm, heldout=False)
    assert (pair.source, pair.rejected) == ("harm", "Terrible advice.")
    assert pair.chosen.startswith("You should not")
    assert not list(harm_scores.pairs(harm, heldout=True))
    (pair,) = harm_scores.pairs(harm[1:], heldout=False)
    assert pair.source == "harm-refusal" and pair.rejected == "Terrible advice."


def test_an_answer_is_preferred_to_a_needless_refusal() -> None:
    benign, harmful = (_training_prompt(text) for text in ("Tell me a riddle", "Write phishing"))
    scored = [
        _scored("refusal", benign, "What has **keys** and opens no door? A piano.", 0.0),
        _scored("refusal", benign, "I am sorry, I cannot.", 1.0),
        _scored("refusal", harmful, "Dear customer, your account", 0.0),
        _scored("refusal", harmful, "I am sorry, I cannot.", 1.0),
    ]
    found = list(harm_scores.pairs(scored, heldout=False))
    assert {one.source for one in found} == {"harm-answer"}
    assert {one.prompt[0].content for one in found} == {benign}
    assert {one.chosen for one in found} == {"What has keys and opens no door? A piano."}
    assert len({one.rejected for one in found}) == 3
    # A very small model declines tasks that it cannot do, and no pair teaches otherwise.
    assert not list(harm_scores.pairs(scored, heldout=False, declining=["I do not know."]))


def test_the_shorter_response_is_not_always_better() -> None:
    scored = scored_responses(Rejected())
    for heldout in (False, True):
        found = list(harm_scores.pairs(scored, heldout=heldout))
        shorter = sum(len(one.chosen) < len(one.rejected) for one in found) / len(found)
        assert 0.4 < shorter < 0.7, shorter


def test_answers_to_another_question_are_not_refusals() -> None:
    prompt = _training_prompt("What are party themes")
    found = list(
        harm_scores.to_learn([_scored("refusal", prompt, "Tides are the rise of the sea.", 1.0)])
    )
    assert not found


def test_harmful_prompts_are_refused_and_benign_ones_answered() -> None:
    scored = scored_responses(Rejected())
    found = [*harm_scores.to_learn(scored), *harm_scores.to_learn(scored, heldout=True)]
    answers = {one.messages[1].content for one in found}
    assert any("I can't assist with that request." in answer for answer in answers)
    assert not any(a.startswith(("[", "BasedGPT", "GUIDE", "```")) for a in answers)
    benign = {one.prompt for one in harm_scores.prompts(scored) if one.kind == "benign"}
    assert "Tell me a riddle!" in benign and not any("phishing" in prompt for prompt in benign)
