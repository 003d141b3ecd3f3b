"""The fields of every kind of spec file: types, limits, defaults and help. The only home of that knowledge.

Each schema is a cerberus schema. `meta.help` is the sentence that the spec reference and editors show, `meta.form` says in words what
a `regex` asks for, `meta.elsewhere` where a key belongs that people look for in the wrong place. `FILES` says which files are of which
kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Schema = dict[str, Any]

TIERS = ("low", "medium", "high")
LANGUAGES = ("tr", "en")
# Element names of LoRA's target modules, as mlx-lm names the linear layers of the supported architectures.
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
OPTIMISERS = ("adam", "adamw", "sgd", "lion", "adafactor")
SCHEDULES = ("constant", "linear", "cosine")
ARCHITECTURES = ("gemma", "gemma2", "gemma3", "llama", "qwen2", "qwen3")
# llama.cpp's names, in the order of their size.
QUANTISATIONS = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0")
LARGEST_INTEGER = 2**63 - 1  # what fits into the 64 bits that other programs have for it
# Where a base model's weights may come from; a source names exactly one.
SOURCES = ("package", "gguf", "ollama", "directory", "repo")
# The client's dimensions (clients/*.yaml may narrow them).
LAYER_PATTERN = r"[CD][0-9]{2}"
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]*"
SLOT_PATTERN = r"[a-z_][a-z0-9_]*"
SPELLING_PATTERN = r"(lower|no_question_mark|ascii|spoken)(\+(lower|no_question_mark|ascii|spoken))*"
_FORMS = {
    LAYER_PATTERN: "'C' or 'D' and two digits, such as C04",
    NAME_PATTERN: "a name of lower-case letters, digits, '.', '_' and '-'",
    SLOT_PATTERN: "a name of lower-case letters, digits and '_'",
    SPELLING_PATTERN: "one or more of lower, no_question_mark, ascii, spoken, joined by '+'",
}


def _field(kind: str, help_text: str, **rules: Any) -> Schema:
    meta: Schema = {"help": help_text}
    if form := rules.pop("form", None) or _FORMS.get(rules.get("regex", "")):
        meta["form"] = form
    if elsewhere := rules.pop("elsewhere", None):
        meta["elsewhere"] = elsewhere
    return {"type": kind, "meta": meta, **rules}


def _text(help_text: str, **rules: Any) -> Schema:
    return _field("string", help_text, empty=False, **rules)


def _name(help_text: str, **rules: Any) -> Schema:
    return _text(help_text, regex=NAME_PATTERN, **rules)


def _number(help_text: str, **rules: Any) -> Schema:
    return _field("number", help_text, coerce="number", **rules)


def _integer(help_text: str, **rules: Any) -> Schema:
    return _field("integer", help_text, coerce="integer", **{"max": LARGEST_INTEGER} | rules)


def _share(help_text: str, **rules: Any) -> Schema:
    return _number(help_text, min=0, max=1, **rules)


def _flag(help_text: str, **rules: Any) -> Schema:
    return _field("boolean", help_text, **rules)


def _list(help_text: str, item: Schema, **rules: Any) -> Schema:
    return _field("list", help_text, schema=item, **rules)


def _map(help_text: str, fields: Schema, **rules: Any) -> Schema:
    return _field("dict", help_text, schema=fields, **rules)


def _by_name(help_text: str, key: Schema, value: Schema, **rules: Any) -> Schema:
    """A mapping whose keys are chosen by whoever writes it."""
    return _field("dict", help_text, keysrules=key, valuesrules=value, **rules)


def _with_defaults(help_text: str, fields: Schema) -> Schema:
    """A mapping that may be left out: every field inside then takes its default."""
    return _map(help_text, fields, default={})


def _range(help_text: str, low: int, high: int, **rules: Any) -> Schema:
    return _list(help_text, _integer("A limit of the range.", min=low, max=high), minlength=2, maxlength=2, **rules)


def _share_range(help_text: str, **rules: Any) -> Schema:
    return _list(help_text, _share("A limit of the range."), minlength=2, maxlength=2, **rules)


_LANGUAGE = {"allowed": list(LANGUAGES)}
_TIER = {"allowed": list(TIERS)}
_LAYERS_ITEM = _text("A dimension of the client, such as C04.", regex=LAYER_PATTERN)

PROJECT: Schema = {
    "name": _name("The project's name; files and reports carry it.", required=True),
    "seed": _integer("Every random choice starts from it: splits, expansion, framings, training.", default=0, min=0),
    "default_recipe": _name("The recipe that plain `doit` builds: the name of a file of specs/recipes/.", required=True),
    "persona": _name("The persona that the samples speak as: the name of a file of specs/personas/.", required=True),
    "dataset": _with_defaults(
        "How samples become train and valid.",
        {
            "balance": _by_name(
                "Share of the samples each group should have; they add up to 1. Nothing is asked for when it is left out.",
                _name("A group: the name of a folder of specs/categories/."),
                _share("A share."),
                default={},
            ),
            "tolerance": _share("How far a group's share may lie from its balance.", default=0.02),
            "valid_share": _number("Share of every category that goes to the valid split.", default=0.1, min=0, max=0.5),
        },
    ),
    "quality": _with_defaults(
        "What the samples must satisfy; each miss names the samples by file and line.",
        {
            "tiers": _map(
                "Least and greatest share of each tier among all samples.",
                {tier: _share_range(f"Least and greatest share of the tier {tier}.") for tier in TIERS},
                default={},
            ),
            "near_duplicate": _share("Similarity of two questions, or of two pairs, from which they are near duplicates.", default=0.9),
            "eval_leak": _share("Similarity of a question to an evaluation query from which it is a leak.", default=0.9),
            "same_opening": _share("Greatest share of answers of a category that begin with the same two words.", default=0.08),
            "forbidden": _list(
                "Phrases that no answer may hold (letter case is ignored, by Turkish rules).",
                _text("A phrase."),
                default=[],
            ),
            "opinion_required": _list("Groups in which every sample carries an opinion marker.", _name("A group."), default=[]),
            "tokens": _integer(
                "Most tokens of a conversation with its earlier thoughts, in any tokenizer: counted in bytes, which are never fewer. With "
                "what frames say around it, it has to fit the context_length of the bases.",
                default=1536,
                min=1,
            ),
        },
    ),
}

_TIER_FIELDS: Schema = {
    "description": _text("What kind of query belongs here.", required=True),
    "iterations": _range("Fewest and most thinking passes that a query of this tier needs.", 1, 99, required=True),
    "response_budget_s": _number("Seconds that an answer may take.", required=True, min=0.1),
}

TIERS_FILE: Schema = {
    "tiers": _map("The complexity tiers.", {tier: _map(f"The {tier} tier.", _TIER_FIELDS, required=True) for tier in TIERS}, required=True),
    "directive": _text("Text added to the system prompt by a client that wants to know the iterations.", required=True),
    "marker": _text("How the answer then begins; {{ iterations }} is the number.", default="<iterations>{{ iterations }}</iterations>"),
    "classifier": _with_defaults(
        "Rules that guess the tier of a query. Points add up; the thresholds turn them into a tier.",
        {
            "bias": _number("Points that every query starts with.", default=0),
            "thresholds": _map(
                "Points from which a query is medium, and from which it is high.",
                {"medium": _number("From here on: medium.", default=2), "high": _number("From here on: high.", default=5)},
                default={},
            ),
            "length": _list(
                "Points by number of words: the last entry whose `words` the query reaches counts.",
                _map(
                    "A length.",
                    {
                        "words": _integer("Fewest words.", required=True, min=0),
                        "points": _number("Points added.", required=True),
                    },
                ),
                default=[],
            ),
            "cues": _list(
                "Words and phrases that raise or lower the guess.",
                _map(
                    "A cue.",
                    {
                        "name": _text("Shown when the verdict is explained.", required=True),
                        "any": _list("Patterns, as in the evaluation checks; one is enough.", _text("A pattern."), default=[]),
                        "cues": _list("Names of other cues; one that is found is enough as well.", _text("A name."), default=[]),
                        "with": _list("Names of cues that must be found too.", _text("A name."), default=[]),
                        "unless": _list("Names of cues that rule it out.", _text("A name."), default=[]),
                        "words": _map(
                            "Limits of the query's length.",
                            {"min": _integer("Fewest words.", min=0), "max": _integer("Most words.", min=0)},
                        ),
                        "points": _number("Points added once; 0 for a cue that only serves others.", required=True),
                    },
                ),
                default=[],
            ),
        },
    ),
}

_WORDS = _map(
    "Fewest and most words of an answer.",
    {"min": _integer("Fewest words.", default=1, min=0), "max": _integer("Most words.", default=400, min=1)},
    default={},
)
_THOUGHT = _map(
    "One earlier observation.",
    {
        "text": _text("What the persona sees at this pass.", required=True),
        "confidence": _share("How sure it is by then.", required=True),
        "layers": _list("Dimensions it stands on.", _LAYERS_ITEM, required=True, minlength=1, maxlength=15),
    },
)
_TURN = _map(
    "One turn.",
    {
        "user": _text("What the user says.", required=True),
        "jessy": _text("What the persona answers.", required=True),
    },
)
_EXAMPLE_FIELDS: Schema = {
    "user": _text("What the user says; `{{ slots.NAME }}` stands for a value of a slot, here and in the answer."),
    "jessy": _text("What the persona answers."),
    "turns": _list("A conversation of several turns, instead of `user` and `jessy`.", _TURN, minlength=2, maxlength=8),
    "language": _text("Language in which both speak; the category's by default.", **_LANGUAGE),
    "tier": _text("Complexity tier; the category's by default.", **_TIER),
    "iterations": _integer("Thinking passes, inside the tier's range; the category's by default.", min=1, max=99),
    "layers": _list("Dimensions that the answer stands on; the category's by default.", _LAYERS_ITEM, minlength=1, maxlength=15),
    "confidence": _share("How sure the final answer is (iteration control); by tier when left out."),
    "thoughts": _list("The earlier, less sure observations before the answer (iteration control).", _THOUGHT, maxlength=8),
    "mood": _text("The feeling that the sample answers to, if any."),
    "source": _text("Where the example came from, when it was learned from a conversation."),
}

CATEGORY: Schema = {
    "description": _text("What these samples teach, in one line.", required=True),
    "language": _text("Language in which both speak.", default="tr", **_LANGUAGE),
    "tier": _text("Complexity tier of an example that names none.", required=True, **_TIER),
    "iterations": _integer("Thinking passes of an example that names none.", required=True, min=1, max=99),
    "layers": _list("Dimensions of an example that names none.", _LAYERS_ITEM, default=["C02"], minlength=1, maxlength=15),
    "template": _text("The Jinja template, under templates/, that renders one sample.", default="samples/chat.j2"),
    "quality": _with_defaults("Limits for the samples of this category.", {"words": _WORDS}),
    "count": _integer("Samples that the category yields; more than the authored examples are expanded.", min=1),
    "slots": _by_name(
        "Values that fill `{{ slots.NAME }}` in examples when the category is expanded.",
        _text("Name of a slot.", regex=SLOT_PATTERN),
        _list("The values of one slot.", _text("A value."), minlength=1),
        default={},
    ),
    "spelling": _map(
        "How people type: user texts (never answers) in other spellings.",
        {
            "share": _share("Share of the samples whose user texts are respelt.", default=0.5),
            "variants": _list(
                "Any of lower, no_question_mark, ascii (Turkish letters without their marks), spoken (bişey, geliyo), or several joined "
                "by +.",
                _text("A variant.", regex=SPELLING_PATTERN),
                required=True,
                minlength=1,
            ),
        },
    ),
    "examples": _list("The authored samples.", _map("One sample.", _EXAMPLE_FIELDS), required=True, minlength=1),
}

_SOURCE_FIELDS: Schema = {
    "package": _text("A Python package that ships the GGUF and puts it together with `assemble(path)`."),
    "gguf": _text("Path of a GGUF file."),
    "ollama": _text("A model in the store of an installed Ollama, such as gemma:2b; it is only read."),
    "directory": _text("A directory in Hugging Face layout."),
    "repo": _text("A repository on the Hugging Face hub."),
    "revision": _text("Commit or tag of the repository."),
    "sha256": _text("Of the GGUF; a file with another is refused.", regex="[0-9a-f]{64}", form="a sha256 of 64 digits 0-9 and a-f"),
}

MODEL: Schema = {
    "description": _text("What the model is, in one line.", required=True),
    "architecture": _text("As the GGUF or config.json names it.", required=True, allowed=list(ARCHITECTURES)),
    "chat_format": _name("How its conversations are written: the name of a file of specs/chat_formats/.", required=True),
    "context_length": _integer("Tokens that one sample may take; longer ones are an error, never cut.", default=2048, min=64),
    "parameters": _integer("Number of parameters, for estimates.", required=True, min=1),
    "sources": _list(
        "Where the weights come from; the first that is at hand is used.",
        _map("One place; it names exactly one of " + ", ".join(SOURCES) + ".", _SOURCE_FIELDS),
        required=True,
        minlength=1,
    ),
    "licence": _map(
        "The terms that the weights come under.",
        {
            "name": _text("Name of the licence.", required=True),
            "url": _text("Where it can be read.", required=True),
            "notice": _text("Shown before the weights are used, and in the model card.", required=True),
        },
        required=True,
    ),
}

_AFFIXES: Schema = {
    "prefix": _field("string", "Text before the content.", required=True),
    "suffix": _field("string", "Text after the content.", required=True),
}

CHAT_FORMAT: Schema = {
    "description": _text("Which models speak it.", required=True),
    "system": _text(
        "Where the system text goes: a turn of its own, or the head of the first user turn.",
        required=True,
        allowed=["own_turn", "first_user_turn"],
    ),
    "system_separator": _field("string", "Between the system text and the first user text, when folded.", default="\n\n"),
    "begin_of_sequence": _flag("Whether a conversation starts with the tokenizer's BOS token.", default=True),
    "turns": _map(
        "How a turn of each role is written.",
        {
            "system": _map("Only where the system has a turn of its own.", _AFFIXES),
            "user": _map("A user turn.", _AFFIXES, required=True),
            "assistant": _map("An assistant turn; the suffix starts with the end of turn.", _AFFIXES, required=True),
        },
        required=True,
    ),
    "end_of_turn": _text("The control token that ends an answer; it is trained on, and it stops generation.", required=True),
    "stop": _list("Texts that stop generation.", _text("A stop text."), required=True, minlength=1),
    "control_tokens": _list("Tokens that only the format may write; in content they stay text.", _text("A token."), required=True),
}

CLIENT: Schema = {
    "description": _text("Which program it is.", required=True),
    "systems": _list(
        "Its own system prompt, in several wordings; training draws from them.",
        _text("A wording."),
        required=True,
        minlength=1,
    ),
    "stages": _list(
        "What it asks at each stage, until it is sure enough.",
        _map(
            "One stage.",
            {
                "name": _text("Name of the stage.", required=True),
                "prompts": _list(
                    "Wordings of the prompt; Jinja with query, stage and observations.",
                    _text("A wording."),
                    required=True,
                    minlength=1,
                ),
            },
        ),
        required=True,
        minlength=1,
        maxlength=9,
    ),
    "observation": _text("How one earlier observation is listed; Jinja with stage, confidence, layers, text.", required=True),
    "separator": _field("string", "What stands between two earlier observations.", default="\n"),
    "answer": _text("The form of answer it parses; Jinja with confidence, layers, text.", required=True),
    "protocol": _text(
        "The parser and stop rule of the client.",
        default="confidence-layers-content",
        allowed=["confidence-layers-content"],
    ),
    "stop": _map(
        "When it stops before the last stage.",
        {
            "alone": _share("Confidence above which one stage is enough.", default=0.95),
            "few_layers": _map(
                "Confidence above which few layers are enough.",
                {"confidence": _share("Above this.", default=0.85), "below": _integer("Fewer layers than this.", default=6, min=1)},
                default={},
            ),
            "agreement": _map(
                "Two successive stages that agree.",
                {
                    "confidence": _share("Both at least this.", default=0.75),
                    "overlap": _share("Intersection over union of their layers above this.", default=0.7),
                },
                default={},
            ),
        },
        default={},
    ),
    "confidence": _map(
        "Range of confidence that a sample without its own is given, by tier.",
        {tier: _share_range(f"Lowest and highest, {tier}.", required=True) for tier in TIERS},
        required=True,
    ),
    "timeout_s": _number("Seconds after which the client gives up.", default=60, min=1),
    "endpoint": _text("Which of Ollama's endpoints it calls.", default="generate", allowed=["generate", "chat"]),
    "binary": _text("Name or path of the program, for the smoke test."),
    "configuration": _map(
        "The file that `doit integrate` edits.",
        {
            "file": _text("Path, relative to where it is asked for.", required=True),
            "keys": _by_name(
                "What to set; Jinja with model and max_iterations. Values have no spaces and no quotes.",
                _text("An environment variable.", regex="[A-Z][A-Z0-9_]*", form="a name of capitals, digits and '_'"),
                _text("Its value.", coerce="text"),
                required=True,
            ),
        },
    ),
}

_PRINCIPLE = _map(
    "One principle.",
    {
        "name": _text("Short name.", required=True),
        "text": _text("The principle in the persona's words.", required=True),
        "cues": _list("Words by which an answer is seen to lean on it.", _text("A pattern."), default=[]),
    },
)
_MARKERS = _map(
    "Words that mark an opinion, by language.",
    {language: _list(f"Markers, {language}.", _text("A pattern.")) for language in LANGUAGES},
    default={},
)
# What Ollama's PARAMETER instruction accepts; anything else it refuses, or warns about and drops. `stop` comes from the chat format.
_PARAMETERS = _map(
    "Ollama's PARAMETERs.",
    {
        "temperature": _number("How freely words are drawn; 0 always takes the likeliest.", min=0, max=5),
        "top_p": _share("Draw from the likeliest words that have this probability together."),
        "top_k": _integer("Draw from so many of the likeliest words; 0 for all.", min=0),
        "min_p": _share("Leave out words below this share of the likeliest one's probability."),
        "repeat_penalty": _number("How much a word that has just been said is held back; 1 for not at all.", min=0, max=10),
        "repeat_last_n": _integer("How many tokens back the penalty looks; 0 for none, -1 for the whole context.", min=-1),
        "presence_penalty": _number("Holds back words that have been said at all.", min=-2, max=2),
        "frequency_penalty": _number("Holds back words by how often they have been said.", min=-2, max=2),
        "num_ctx": _integer("Tokens of prompt and answer together; what is longer loses its beginning.", min=16),
        "num_predict": _integer("Longest answer in tokens; -1 for no limit, -2 until the context is full.", min=-2),
        "num_keep": _integer("Tokens of the beginning that stay when the context is full; -1 for all of the prompt.", min=-1),
        "num_batch": _integer("Tokens of the prompt that are read at a time.", min=1),
        "num_gpu": _integer("Layers put on the GPU; -1 for as many as fit.", min=-1),
        "main_gpu": _integer("The GPU that small tensors are on.", min=0),
        "num_thread": _integer("Threads on the CPU; 0 for Ollama's choice.", min=0),
        "draft_num_predict": _integer("Tokens that a draft model guesses ahead.", min=0),
        "use_mmap": _flag("Whether the file is mapped into memory, not read."),
        "seed": _integer("Of the draws; the same seed gives the same answer."),
    },
    default={},
    elsewhere={"stop": "what stops an answer is said once, in the chat format (specs/chat_formats/)"}
    | dict.fromkeys(
        ("mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline", "tfs_z", "typical_p"),
        "Ollama warns about it and drops it",
    ),
)
_MESSAGE = _map("One exchange.", {"user": _text("A user's words.", required=True), "jessy": _text("The answer.", required=True)})
_STYLE_LINE = _text("One rule of style.")

PERSONA: Schema = {
    "extends": _name("A persona whose fields this one takes over; what is named here replaces them, parameters one by one."),
    "display_name": _text("The name it goes by.", required=True),
    "description": _text("One line for lists.", required=True),
    "identity": _text("Who it is, in the second person.", required=True),
    "principles": _list("What it holds on to.", _PRINCIPLE, default=[]),
    "style": _list("How it speaks.", _STYLE_LINE, default=[]),
    "brevity": _text("When to be short.", required=True),
    "opinion_markers": _MARKERS,
    "parameters": _PARAMETERS,
    "messages": _list("Example exchanges put into the Modelfile.", _MESSAGE, default=[]),
    "template": _text("The Jinja template, under templates/, that renders the system prompt.", default="persona/system.j2"),
    "append": _map(
        "Added to the lists of the persona it extends.",
        {"style": _list("Rules.", _STYLE_LINE), "principles": _list("Principles.", _PRINCIPLE), "messages": _list("Exchanges.", _MESSAGE)},
    ),
    "remove": _map(
        "Taken out of the lists of the persona it extends.",
        {
            "style": _list("Rules, word for word.", _STYLE_LINE),
            "principles": _list("Names of principles.", _text("A name.")),
            "messages": _list("The user's words of exchanges.", _text("User's words.")),
        },
    ),
}

RECIPE: Schema = {
    "description": _text("What this recipe makes.", required=True),
    "base": _name("The model that is fine-tuned: the name of a file of specs/models/.", required=True),
    "personas": _list(
        "Personas that get a Modelfile; the first is the one trained under.",
        _name("A persona."),
        required=True,
        minlength=1,
    ),
    "framings": _with_defaults(
        "In which frames the samples are shown.",
        {
            "mix": _by_name(
                "Share of each framing; they add up to 1.",
                _name("One of persona, none, directive, or a client's name."),
                _share("A share."),
                default={"persona": 1.0},
            ),
            "per_sample": _integer("Framings that a sample gets.", default=1, min=1, max=16),
            "each_epoch": _text(
                "Whether an epoch shows a sample in one of its framings, in turn, or in all.",
                default="one",
                allowed=["one", "all"],
            ),
        },
    ),
    "lora": _with_defaults(
        "The adapter.",
        {
            "rank": _integer("Rank r of the two factors.", default=16, min=1, max=1024),
            "alpha": _number("The update is scaled by alpha / rank.", default=32, min=0.001),
            "dropout": _number("Share of the adapter's inputs dropped in training.", default=0.0, min=0, max=0.95),
            "targets": _list(
                "Linear layers that get an adapter.",
                _text("A layer.", allowed=list(LINEAR_LAYERS)),
                default=list(LINEAR_LAYERS),
                minlength=1,
            ),
            "layers": _integer("How many of the last blocks get one; -1 for all.", default=-1, min=-1, forbidden=[0]),
            "dora": _flag("Weight-decomposed adapters (DoRA).", default=False),
        },
    ),
    "training": _with_defaults(
        "The run.",
        {
            "optimiser": _text("Of MLX's optimisers.", default="adamw", allowed=list(OPTIMISERS)),
            "learning_rate": _number("At its highest.", default=1e-4, min=1e-9, max=1),
            "schedule": _text("How the learning rate goes on after the warm-up.", default="constant", allowed=list(SCHEDULES)),
            "warmup_steps": _integer("Steps over which it rises from 0.", default=0, min=0),
            "weight_decay": _number("Of adamw, lion and sgd.", default=0.0, min=0),
            "batch_size": _integer("Samples a step and accumulation.", default=8, min=1),
            "accumulation": _integer("Batches whose gradients make one step.", default=1, min=1),
            "epochs": _integer("Passes over the train split.", default=3, min=1),
            "max_steps": _integer("Stop after so many steps, whatever the epochs say.", min=1, nullable=True, default=None),
            "clip": _number("Greatest norm of the gradient; 0 for no limit.", default=1.0, min=0),
            "validate_every": _integer("Steps between validations.", default=25, min=1),
            "patience": _integer("Steps without a better validation loss after which the run ends; 0 for never.", default=50, min=0),
            "min_delta": _number("Smallest decrease of the validation loss that counts as better.", default=0.0, min=0),
            "checkpoint_every": _integer("Steps between checkpoints.", default=100, min=1),
            "log_every": _integer("Steps between lines of metrics.jsonl.", default=10, min=1),
            "memory_budget_gb": _number("Above this the run warns.", default=10, min=0.1),
            "gradient_checkpointing": _flag("Compute activations twice, hold them once.", default=False),
            "base_bits": _integer(
                "Hold the base in so many bits (QLoRA); null for the training dtype.",
                allowed=[4, 8],
                nullable=True,
                default=None,
            ),
            "report_to": _text(
                "Send the metrics there as well; wants pip install wandb, tensorboardX or swanlab.",
                allowed=["wandb", "tensorboard", "swanlab"],
                nullable=True,
                default=None,
            ),
            "hosts": _list(
                "Machines to train on together, this one first, by name or address; or a file of mlx.distributed_config; none for this one alone.",
                _text("A host, or the path of a file that ends in .json."),
                default=[],
            ),
            "backend": _text(
                "How they talk to each other; null for what mlx.launch chooses: ring (TCP), on NVIDIA nccl.",
                allowed=["ring", "mpi", "nccl", "jaccl", "jaccl-ring"],
                nullable=True,
                default=None,
            ),
        },
    ),
    "export": _with_defaults(
        "The files that are released.",
        {
            "quantisations": _list(
                "As llama.cpp names them, or auto, the smallest that loses no more than loss_budget; the first is evaluated and deployed.",
                _text("A quantisation.", allowed=[*QUANTISATIONS, "auto"]),
                default=["Q8_0"],
                minlength=1,
            ),
            "loss_budget": _number(
                "What quantising may cost, in nats a token: the natural logarithm of the perplexity's ratio to F16's.",
                default=0.05,
                min=0,
            ),
        },
    ),
    "deploy": _map(
        "In Ollama.",
        {"name": _name("Name of the model under the first persona; the others add theirs: NAME-PERSONA.", required=True)},
        required=True,
    ),
    "evaluation": _with_defaults(
        "How base and tuned model are judged.",
        {
            "suites": _list("Names of files of specs/evals/; all of them when left out.", _name("A suite."), default=[]),
            "framings": _list(
                "Frames the queries are asked in: persona, none, directive, or a client's name.",
                _name("A framing."),
                default=["persona"],
                minlength=1,
            ),
            "max_tokens": _integer("Longest answer.", default=320, min=1),
            "repeats": _integer("Answers a case when the temperature is above 0.", default=1, min=1),
            "temperature": _number("Of the evaluation; 0 is greedy.", default=0.0, min=0, max=2),
        },
    ),
    "gates": _with_defaults(
        "What a release must reach.",
        {
            "enforce": _flag("Whether a missed gate ends the build with exit code 2.", default=False),
            "turkish": _share("Accuracy of the suite turkish.", default=0.9),
            "technical": _share("Accuracy of the suite technical.", default=0.85),
            "appropriateness": _share("Over all suites.", default=0.85),
            "iteration_efficiency": _share("Share of queries whose iterations lie in their tier.", default=0.8),
            "simple_query_s": _number("Seconds that a simple query may take.", default=5, min=0.1),
        },
    ),
}

# What a sweep may vary: of the recipe, and of its first persona what an evaluation can show; nothing that leaves the result as it is.
SWEPT: dict[str, tuple[str, ...]] = {
    "lora": ("rank", "alpha", "dropout", "targets", "layers", "dora"),
    "training": (
        "optimiser", "learning_rate", "schedule", "warmup_steps", "weight_decay", "batch_size", "accumulation", "epochs", "max_steps", "clip",
        "patience", "base_bits",
    ),
    "parameters": ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty"),
}  # fmt: skip
MOST_POINTS = 100  # of a sweep: beyond them it is a slip, or takes weeks
# Weekdays as cron counts them, from Sunday on.
WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")


def _swept(part: str) -> Schema:
    """The fields of a part that a sweep may vary, as the part itself has them, but without their defaults."""
    fields = _PARAMETERS["schema"] if part == "parameters" else RECIPE[part]["schema"]
    return {name: {rule: value for rule, value in fields[name].items() if rule != "default"} for name in SWEPT[part]}


_SWEPT_HELP = {
    "lora": "Of `lora`.",
    "training": "Of `training`.",
    "parameters": "Of the first persona's `parameters`; the evaluation then draws at the temperature that they have.",
}
_POINT = {part: _map(_SWEPT_HELP[part], _swept(part), minlength=1) for part in SWEPT}
_GRID = {
    part: _map(
        _SWEPT_HELP[part],
        {name: _list(f"Values of {part}.{name}.", rules, minlength=1) for name, rules in _swept(part).items()},
        minlength=1,
    )
    for part in SWEPT
}
RECIPE |= {
    "sweep": _map(
        "Settings that `doit sweep` tries, each judged on validation loss and the dev half of the cases; the recipe as it is comes along.",
        {
            "grid": _map("Each of these values with each of the others.", _GRID, minlength=1),
            "points": _list(
                "Single points; what a point does not name is as in the recipe.",
                _map("One point.", _POINT, minlength=1),
                minlength=1,
            ),
            "suites": _list("Names of files of specs/evals/; those of the evaluation when left out.", _name("A suite."), default=[]),
            "framings": _list("Frames the queries are asked in; the first of the evaluation when left out.", _name("A framing."), default=[]),
        },
    ),
    "retrain": _with_defaults(
        "How `doit retrain` makes a candidate, which is deployed only if it is not worse than what is.",
        {
            "from": _text(
                "Whether it is trained from the base, or on from the adapter that is deployed.",
                default="fresh",
                allowed=["fresh", "deployed"],
            ),
            "training": _map(
                "What is otherwise than in `training`.",
                {
                    name: {rule: value for rule, value in RECIPE["training"]["schema"][name].items() if rule != "default"}
                    for name in ("learning_rate", "schedule", "warmup_steps", "epochs", "max_steps")
                },
                default={},
            ),
            "schedule": _with_defaults(
                "When it runs, in what `doit retrain --schedule` prints for cron and launchd.",
                {
                    "weekday": _text("A day of the week, or every day.", default="sunday", allowed=[*WEEKDAYS, "every"]),
                    "hour": _integer("Of the day.", default=3, min=0, max=23),
                    "minute": _integer("Of the hour.", default=30, min=0, max=59),
                },
            ),
        },
    ),
}

_PATTERNS = "a word or phrase found at the start of a word, `word$` as a whole word, `/regex/` anywhere"
# What each check means is in generators/evaluate/checks.py, which knows the same names.
_CHECK = _map(
    "One check; several in one mapping count as several.",
    {
        "any": _list(f"One of these patterns is found: {_PATTERNS}.", _text("A pattern."), minlength=1),
        "all": _list("All of these patterns are found.", _text("A pattern."), minlength=1),
        "none": _list("None of these patterns is found.", _text("A pattern."), minlength=1),
        "carries": _list("Facts of earlier turns, as patterns, that are all found.", _text("A pattern."), minlength=1),
        "similar_to": _map(
            "The answer resembles one of the references.",
            {
                "references": _list("Good answers.", _text("An answer."), required=True, minlength=1),
                "chrf": _number("Least similarity (chrF) to the nearest one.", required=True, min=0.01, max=1),
            },
        ),
        "code_compiles": _text("The code blocks of this language compile.", allowed=["rust", "python"]),
        "words": _map("Fewest and most words.", {"min": _integer("Fewest.", min=0), "max": _integer("Most.", min=0)}, minlength=1),
        "sentences": _map("Fewest and most sentences.", {"min": _integer("Fewest.", min=0), "max": _integer("Most.", min=0)}, minlength=1),
        "no_list": _flag("Neither a list nor a heading; false takes back a default of the suite."),
        "no_generic": _flag("None of the phrases that quality.forbidden of the project names."),
        "no_repetition": _flag("It does not repeat itself."),
        "no_echo": _flag("It does not give the question back."),
        "no_marker": _flag("It shows no marker of the directive or of a client's protocol."),
        "opinion": _text("Whether it carries one of the persona's opinion markers.", allowed=["required", "absent"]),
        "principle": _flag("It leans on one of the persona's principles, seen by their cues."),
    },
    minlength=1,
)

_CASE_FIELDS: Schema = {
    "id": _name("Unique in the suite.", required=True),
    "query": _text("What is asked."),
    "turns": _list(
        "A conversation instead; its last turn has no answer yet.",
        _map("One turn.", {"user": _text("The user's words.", required=True), "jessy": _text("The answer.")}),
        minlength=2,
    ),
    "language": _text("Of the expected answer.", required=True, **_LANGUAGE),
    "tier": _text("How much thought it needs.", required=True, **_TIER),
    "checks": _list("What the answer must pass, beside the suite's defaults.", _CHECK, default=[]),
    "half": _text(
        "Which half it is in: dev is for tuning recipes, test for the figures at the end; drawn by id when left out.",
        allowed=["dev", "test"],
    ),
}

SUITE: Schema = {
    "description": _text("What it judges.", required=True),
    "defaults": _list("Checks applied to every case; a limit that a case sets itself replaces the default.", _CHECK, default=[]),
    "cases": _list("The cases.", _map("One case.", _CASE_FIELDS), required=True, minlength=1),
}

# The types of Ollama's PARAMETERs, by name.
OLLAMA_PARAMETERS: dict[str, str] = {name: rules["type"] for name, rules in _PARAMETERS["schema"].items()}


class Kind(NamedTuple):
    """A kind of spec file. pattern: of its files, under specs/. help: what such a file is for. optional: a project may have none."""

    schema: Schema
    pattern: str
    help: str
    optional: bool = False


# A file's name is its own name: personas/jessy.yaml is the persona jessy, categories/turkish/slang.yaml the category turkish/slang.
FILES: dict[str, Kind] = {
    "project": Kind(PROJECT, "project.yaml", "Name, seed and default recipe; how samples become a dataset, and what they must satisfy."),
    "tiers": Kind(TIERS_FILE, "tiers.yaml", "The complexity tiers, the iteration directive, and the rules that guess a query's tier."),
    "category": Kind(CATEGORY, "categories/*/*.yaml", "One category of training samples, in the group that its folder names."),
    "model": Kind(MODEL, "models/*.yaml", "A base model: where its weights come from, how it is spoken to, under which licence."),
    "chat_format": Kind(CHAT_FORMAT, "chat_formats/*.yaml", "How messages become text for a family of models."),
    "client": Kind(CLIENT, "clients/*.yaml", "A program that asks the model: how it frames queries, reads answers, stops.", optional=True),
    "persona": Kind(PERSONA, "personas/*.yaml", "Who the model is: its system prompt, parameters and example exchanges."),
    "recipe": Kind(RECIPE, "recipes/*.yaml", "All about one model to be released: base, personas, training, export, evaluation, gates."),
    "suite": Kind(SUITE, "evals/*.yaml", "Queries whose answers are judged, with the checks that they must pass.", optional=True),
}
