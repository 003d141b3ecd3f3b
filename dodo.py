"""Edit YAML in specs/, run `doit`: a fine-tuned, measured, quantised model, rebuilt no further than the edit reaches.

A table of contents: one task creator a stage, in build order. Each gathers the slice of the specs that its stage reads and hands it,
with paths, to a plain function in generators/. Nothing heavy is imported here; actions import what they need.
"""

from functools import partial
from pathlib import Path

from generators.paths import Paths
from generators.stages import (
    authoring,
    corpus,
    export,
    judging,
    learning,
    modelfiles,
    planning,
    reading,
    release,
    talking,
    training,
    trials,
)  # fmt: skip
from generators.tasks import load_project, stages_before, task, template_files

PATHS = Paths(Path())
PROJECT = load_project(PATHS.root)
DEFAULT = PROJECT.project["default_recipe"]
DEFAULTS = (DEFAULT, PROJECT.recipes[DEFAULT]["base"])
DOIT_CONFIG = {"default_tasks": [f"report:{DEFAULT}"]}


def task_doctor():
    """Say whether this machine can train, with what, and what is missing"""
    return task("doctor", None, task_doctor.__doc__, partial(planning.doctor, PROJECT, PATHS), always=True)


def task_plan():
    """Say what doit would do, why, and how long it would take; change nothing"""
    return task(
        "plan",
        None,
        task_plan.__doc__,
        partial(planning.plan, PROJECT, PATHS, partial(stages_before, globals())),
        always=True,
        params=[
            {"name": "recipe", "long": "recipe", "default": DEFAULT, "help": "the recipe that is to be built"},
            {"name": "as_json", "long": "json", "type": bool, "default": False, "help": "for programs"},
        ],
    )


def task_samples():
    """Render the samples of every category"""
    for name, category in PROJECT.categories.items():
        yield task(
            "samples",
            name,
            category["description"],
            partial(corpus.samples, PROJECT, PATHS, name),
            reads=partial(corpus.samples_slice, PROJECT, PATHS, name),
            inputs=template_files(PATHS.templates, category["template"]),
            targets=[PATHS.samples(name)],
            source=["samples", "templates.py", "turkish_suffixes.py"],
        )


def task_dataset():
    """Judge the samples by the quality gates and split them into train and valid"""
    return task(
        "dataset",
        None,
        task_dataset.__doc__,
        partial(corpus.dataset, PROJECT, PATHS),
        reads=partial(corpus.dataset_slice, PROJECT),
        inputs=[PATHS.samples(name) for name in PROJECT.categories],
        targets=[PATHS.dataset / name for name in ("train.jsonl", "valid.jsonl", "report.json")],
        source=["dataset", "classify.py", "language.py", "memory.py", "needles.py", "patterns.py", "turkish.py"],
        after=[f"samples:{name}" for name in PROJECT.categories],
    )


def task_classify():
    """Guess the complexity tier of a query, and say why (--query "..."); without one, list what authors see otherwise"""
    return task(
        "classify",
        None,
        task_classify.__doc__,
        partial(corpus.classify, PROJECT),
        always=True,
        params=[{"name": "query", "long": "query", "default": "", "help": "the user's words"}],
    )


def task_base():
    """Import a base model: weights, configuration, tokenizer"""
    for name, model in PROJECT.models.items():
        yield task(
            "base",
            name,
            model["description"],
            partial(training.base, PROJECT, PATHS, name),
            reads=partial(training.base_slice, PROJECT, name),
            targets=[PATHS.model(name) / file for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "source.json")],
            source=[
                "base.py",
                "base_sources.py",
                "architectures.py",
                "gguf_file.py",
                "gguf_tokenizer.py",
                "quantise.py",
                "safetensors_stream.py",
                "slices.py",
                "chat_format.py",
            ],
        )


def task_preflight():
    """Put a tiny random model through the whole chain, and check that this machine has room for the real run; nothing in build/ changes"""
    for name, recipe in PROJECT.recipes.items():
        doc = f"Put a random model like {recipe['base']} through the chain of {name}"
        yield task("preflight", name, doc, partial(planning.preflight, PROJECT, PATHS, name), always=True)


def task__frames():
    """Put the samples into the frames that a recipe trains in"""
    for name, recipe in PROJECT.recipes.items():
        frames = PATHS.recipe(name).frames
        yield task(
            "_frames",
            name,
            f"Frame the samples for {name}",
            partial(corpus.frames, PROJECT, PATHS, name),
            reads=partial(corpus.frames_slice, PROJECT, PATHS, name),
            inputs=[
                PATHS.dataset / "train.jsonl",
                PATHS.dataset / "valid.jsonl",
                *reading.persona_templates(PROJECT, PATHS, recipe, trained_only=True),
            ],
            targets=[frames / file for file in ("train.jsonl", "valid.jsonl", "trained.sha256", "system.txt")],
            source=["framing.py", "clients.py", "modelfile.py", "templates.py", "turkish_suffixes.py"],
        )


def task_train():
    """Train the adapter; the best one by validation loss is kept"""
    for name, recipe in PROJECT.recipes.items():
        paths = PATHS.recipe(name)
        yield task(
            "train",
            name,
            recipe["description"],
            partial(training.train, PROJECT, PATHS, name),
            reads=partial(training.train_slice, PROJECT, name),
            inputs=[paths.frames / "trained.sha256", PATHS.model(recipe["base"]) / "source.json"],
            targets=[paths.adapter / "adapters.safetensors", paths.adapter / "adapter_config.json", paths.training_summary],
            source=["train", "tracking.py", "tokens.py", "chat_format.py"],
            after=[f"_frames:{name}", f"base:{recipe['base']}"],
        )


def task_watch():
    """Follow a training from another terminal until it ends"""
    return task(
        "watch",
        None,
        task_watch.__doc__,
        partial(training.watch, PROJECT, PATHS),
        always=True,
        params=[{"name": "recipe", "long": "recipe", "default": "", "help": "this recipe's; else whichever is going on"}],
    )


def task_fuse():
    """Merge the adapter into the base, in Hugging Face layout"""
    for name, recipe in PROJECT.recipes.items():
        paths = PATHS.recipe(name)
        yield task(
            "fuse",
            name,
            f"Merge the adapter of {name} into {recipe['base']}",
            partial(export.fuse, PROJECT, PATHS, name),
            inputs=[
                paths.adapter / "adapters.safetensors",
                paths.adapter / "adapter_config.json",
                *(PATHS.model(recipe["base"]) / file for file in ("source.json", "config.json", "tokenizer_config.json")),
            ],
            targets=[paths.fused / "config.json", paths.fused / "source.json"],
            source=["fuse.py", "lora_delta.py", "gguf_file.py", "quantise.py", "safetensors_stream.py", "slices.py"],
        )


def task_gguf():
    """Write the quantised GGUFs, check them, and hear one answer from llama.cpp"""
    for name, recipe in PROJECT.recipes.items():
        paths = PATHS.recipe(name)
        yield task(
            "gguf",
            name,
            f"Write {', '.join(recipe['export']['quantisations'])} of {name}",
            partial(export.gguf, PROJECT, PATHS, name),
            reads=partial(export.gguf_slice, PROJECT, name),
            inputs=[
                paths.adapter / "adapters.safetensors",
                paths.adapter / "adapter_config.json",
                *export.gguf_inputs(PATHS, name, recipe),
            ],
            targets=[*(paths.gguf(quantisation) for quantisation in recipe["export"]["quantisations"]), paths.export],
            source=[
                "gguf.py",
                "quantise.py",
                "ggml.py",
                "lora_delta.py",
                "architectures.py",
                "gguf_file.py",
                "gguf_tokenizer.py",
                "safetensors_stream.py",
                "slices.py",
                "chat_format.py",
                *export.gguf_source(recipe),
            ],
        )


def task_quantisations():
    """Measure what each quantisation loses against F16, and that F16 in llama.cpp is the fused model in MLX, or the build ends here"""
    for name, recipe in PROJECT.recipes.items():
        paths = PATHS.recipe(name)
        yield task(
            "quantisations",
            name,
            f"Measure what quantising costs {name}",
            partial(export.quantisations, PROJECT, PATHS, name),
            reads=partial(export.quantisations_slice, PROJECT, name),
            inputs=[
                *(paths.gguf(quantisation) for quantisation in recipe["export"]["quantisations"]),
                paths.export,
                paths.adapter / "adapters.safetensors",
                paths.fused / "source.json",
                paths.frames / "valid.jsonl",
            ],
            targets=[paths.quantisations],
            source=["quantisations.py", "llama_logits.py", "ggml.py", "train/cross_entropy.py", "tokens.py", "chat_format.py"],
            after=[f"fuse:{name}", f"gguf:{name}", f"base:{recipe['base']}"],
        )


def task_modelfile():
    """Render an Ollama Modelfile for every persona of a recipe"""
    for name, recipe in PROJECT.recipes.items():
        yield task(
            "modelfile",
            name,
            f"Render the Modelfiles of {name}: {', '.join(recipe['personas'])}",
            partial(modelfiles.modelfiles, PROJECT, PATHS, name),
            reads=partial(modelfiles.modelfile_slice, PROJECT, PATHS, name),
            inputs=[*template_files(PATHS.templates, "Modelfile.j2"), *reading.persona_templates(PROJECT, PATHS, recipe)],
            targets=[PATHS.modelfile(name, persona) for persona in recipe["personas"]],
            source=["modelfile.py", "modelfile_reader.py", "chat_format.py", "templates.py", "turkish_suffixes.py"],
        )


def task_diff():
    """Show what the specs of now change in the Modelfiles, in words and as a diff; exit code 1 where they differ"""
    return task(
        "diff",
        None,
        task_diff.__doc__,
        partial(modelfiles.diff, PROJECT, PATHS),
        always=True,
        params=[
            {"name": "recipe", "long": "recipe", "default": "", "help": "this recipe only"},
            {"name": "persona", "long": "persona", "default": "", "help": "this persona only"},
            {"name": "against", "long": "against", "default": "", "help": "another persona, instead of what was deployed or committed"},
            {"name": "as_json", "long": "json", "type": bool, "default": False, "help": "for programs"},
        ],
    )


def task_parity():
    """Prove that what was trained is what every engine sends: the same token ids, or the build ends here"""
    for name, recipe in PROJECT.recipes.items():
        paths = PATHS.recipe(name)
        yield task(
            "parity",
            name,
            f"Compare the token ids of {name} in training and engines",
            partial(export.parity, PROJECT, PATHS, name),
            reads=partial(export.parity_slice, PROJECT, PATHS, name),
            inputs=[
                paths.gguf(recipe["export"]["quantisations"][0]),
                paths.frames / "trained.sha256",
                *template_files(PATHS.templates, "Modelfile.j2"),
                *reading.persona_templates(PROJECT, PATHS, recipe),
            ],
            targets=[paths.parity],
            source=["parity.py", "ggml.py", "gguf_file.py", "tokens.py", "chat_format.py", "modelfile_reader.py"],
            after=[f"gguf:{name}", f"modelfile:{name}", f"base:{recipe['base']}"],
        )


def task_evaluate():
    """Ask base and tuned model the evaluation's queries in llama.cpp, and judge the answers"""
    for name, recipe in PROJECT.recipes.items():
        paths = PATHS.recipe(name)
        yield task(
            "evaluate",
            name,
            f"Judge {name} against its base",
            partial(judging.evaluate, PROJECT, PATHS, name),
            reads=partial(judging.evaluate_slice, PROJECT, name),
            inputs=[paths.gguf(recipe["export"]["quantisations"][0]), paths.frames / "system.txt"],
            targets=[paths.evaluation / file for file in ("scores.json", "base.jsonl", "tuned.jsonl")],
            source=[
                "evaluate",
                "clients.py",
                "patterns.py",
                "language.py",
                "turkish.py",
                "tokens.py",
                "chat_format.py",
                "framing.py",
                "modelfile.py",
                "templates.py",
                "turkish_suffixes.py",
            ],
            after=[f"base:{recipe['base']}", f"parity:{name}"],
        )


def task_compare():
    """Compare any two recipes, personas or deployments case by case, and write a report of the two (--a X --b Y)"""
    return task(
        "compare",
        None,
        task_compare.__doc__,
        partial(trials.compare, PROJECT, PATHS),
        always=True,
        params=[
            {"name": "a", "long": "a", "default": "", "help": "a recipe, RECIPE:PERSONA, or MODEL@NUMBER of a deployment"},
            {"name": "b", "long": "b", "default": "", "help": "the same; the one that is judged against the first"},
        ],
    )


def task__sweep_train():
    """Train the adapters of a sweep, each once for all points that share it"""
    for name, recipe in PROJECT.recipes.items():
        for adapter, point in trials.sweep_adapters(PROJECT, name).items():
            yield task(
                "_sweep_train",
                f"{name}:{adapter}",
                f"Train {adapter} of the sweep of {name}",
                partial(trials.sweep_train, PROJECT, PATHS, name, point),
                reads=partial(trials.sweep_train_slice, PROJECT, name, point),
                inputs=[PATHS.recipe(name).frames / "trained.sha256", PATHS.model(recipe["base"]) / "source.json"],
                targets=[PATHS.sweep(name).trained(adapter)],
                source=["train", "tracking.py", "tokens.py", "chat_format.py"],
                after=[f"_frames:{name}", f"base:{recipe['base']}"],
            )


def task_sweep():
    """Try the settings that a recipe's sweep declares, judge each on validation loss and the dev half alone, and name the best"""
    for name in PROJECT.recipes:
        points = trials.sweep_points(PROJECT, name)
        doc, after = f"Name the best of the settings that {name} declares", [f"sweep:{name}:{point.name}" for point in points]
        yield task("sweep", name, doc, partial(trials.sweep, PROJECT, PATHS, name), always=True, after=after)
        for point in points:
            yield task(
                "sweep",
                f"{name}:{point.name}",
                f"Judge {point.name}",
                partial(trials.sweep_point, PROJECT, PATHS, name, point),
                reads=partial(trials.sweep_point_slice, PROJECT, name, point),
                inputs=[PATHS.sweep(name).trained(point.adapter), PATHS.recipe(name).frames / "system.txt"],
                targets=[PATHS.sweep(name).result(point.name), PATHS.sweep(name).rows(point.name)],
                source=["evaluate", "sweep.py", "clients.py", "patterns.py", "language.py", "turkish.py", "tokens.py", "chat_format.py"],
                after=[f"_sweep_train:{name}:{point.adapter}"],
            )


def task_ledger():
    """Ask base, adapter, fused, F16, quantised and deployed model the same 30 questions, and name the first stage that loses"""
    for name in PROJECT.recipes:
        yield task(
            "ledger",
            name,
            f"Find the stage at which {name} loses its persona",
            partial(judging.ledger, PROJECT, PATHS, name),
            always=True,
            after=[f"{stage}:{name}" for stage in ("_frames", "fuse", "gguf")],
        )


def task__lock():
    """Pin what a recipe was made from and what came of it"""
    for name in PROJECT.recipes:
        yield task(
            "_lock",
            name,
            f"Pin what {name} was made from and what came of it",
            partial(release.lock, PROJECT, PATHS, name),
            reads=partial(release.lock_slice, PROJECT, name),
            inputs=release.lock_inputs(PROJECT, PATHS, name),
            targets=[PATHS.recipe(name).lock],
            source=["lock.py"],
        )


def task_report():
    """Write the report of a recipe (scores, curves, answers before and after) and its model card"""
    for name in PROJECT.recipes:
        paths = PATHS.recipe(name)
        yield task(
            "report",
            name,
            f"Write the report of {name}",
            partial(judging.report, PROJECT, PATHS, name),
            reads=partial(judging.report_slice, PROJECT, name),
            inputs=[
                *(paths.evaluation / file for file in ("scores.json", "base.jsonl", "tuned.jsonl")),
                paths.training_summary,
                paths.export,
                paths.quantisations,
                *judging.kept_ledger(PATHS, name),
                PATHS.dataset / "report.json",
                paths.frames / "system.txt",
                *template_files(PATHS.templates, "reports/report.html.j2", "reports/report.md.j2", "reports/card.md.j2"),
            ],
            targets=[paths.report, paths.report.with_suffix(".md"), paths.card],
            source=["report"],
            after=[f"{stage}:{name}" for stage in ("train", "fuse", "gguf", "quantisations", "modelfile", "parity", "evaluate", "_lock")],
        )


def task_deploy():
    """Bring a recipe's models into Ollama, each checked before it replaces the one before (--rollback: back to those)"""
    for name, recipe in PROJECT.recipes.items():
        yield task(
            "deploy",
            name,
            f"Bring {recipe['deploy']['name']} and its variants into Ollama, checked",
            partial(release.deploy, PROJECT, PATHS, name),
            always=True,
            after=[f"{stage}:{name}" for stage in ("gguf", "modelfile", "parity")],
            params=[
                {"name": "rollback", "long": "rollback", "type": bool, "default": False, "help": "back to the deployment before; build nothing"},
            ],
            alone="--rollback",
        )


def task_retrain():
    """Train a candidate on the specs of now, judge it against what is deployed, and deploy it only if it is not worse (--schedule)"""
    for name, recipe in PROJECT.recipes.items():
        yield task(
            "retrain",
            name,
            f"Train a candidate for {recipe['deploy']['name']}, and promote it if it is as good",
            partial(trials.retrain, PROJECT, PATHS, name),
            always=True,
            after=["dataset", f"base:{recipe['base']}"],
            params=[
                {"name": "schedule", "long": "schedule", "type": bool, "default": False, "help": "print how cron and launchd run it"},
            ],
            alone="--schedule",
        )


def task_chat():
    """Talk to the finished model in the terminal, in llama.cpp; /help lists what can be typed"""
    for name, recipe in PROJECT.recipes.items():
        yield task("chat", name, f"Talk to {recipe['deploy']['name']}", partial(talking.chat, PROJECT, PATHS, name), always=True)


def task_serve():
    """Serve the finished model on loopback as Ollama and OpenAI do (--port N, --record FILE)"""
    for name, recipe in PROJECT.recipes.items():
        yield task(
            "serve",
            name,
            f"Serve {recipe['deploy']['name']} and its variants",
            partial(talking.serve, PROJECT, PATHS, name),
            always=True,
            params=[
                # Ollama has 11434: both may run side by side
                {"name": "port", "long": "port", "type": int, "default": 11435, "help": "on 127.0.0.1; 0 for any that is free"},
                {"name": "record", "long": "record", "default": "", "help": "keep what clients send in this file, for doit capture"},
            ],
        )


def task_capture():
    """Learn from a recording how a client really asks (--recording FILE), for training and evaluation"""
    return task(
        "capture",
        None,
        task_capture.__doc__,
        partial(talking.capture, PROJECT, PATHS),
        always=True,
        params=[
            {"name": "recording", "long": "recording", "default": "", "help": "what doit serve --record kept"},
            {"name": "client", "long": "client", "default": "", "help": "the client that was recorded, where there are several"},
            {"name": "force", "long": "force", "type": bool, "default": False, "help": "keep a profile that is not sure, too"},
        ],
    )


def task_integrate():
    """Set a client's configuration file to the deployed model, shown before and undone by --undo, and ask it one query (--file PATH)"""
    for name, recipe in PROJECT.recipes.items():
        yield task(
            "integrate",
            name,
            f"Set a client's configuration to {recipe['deploy']['name']}",
            partial(learning.integrate, PROJECT, PATHS, name),
            always=True,
            params=[
                {"name": "file", "long": "file", "default": "", "help": "the client's configuration file, or the folder that it is in"},
                {"name": "client", "long": "client", "default": "", "help": "the client, where several have a configuration file"},
                {"name": "yes", "long": "yes", "type": bool, "default": False, "help": "do it without a question"},
                {"name": "undo", "long": "undo", "type": bool, "default": False, "help": "bring back what the last integration changed"},
            ],
        )


def task_feedback():
    """Propose examples out of chats and logs as a diff of the specs (--from PATH); a person goes through it with --review"""
    return task(
        "feedback",
        None,
        task_feedback.__doc__,
        partial(learning.feedback, PROJECT, PATHS),
        always=True,
        params=[
            {"name": "sources", "long": "from", "type": list, "default": [], "help": "logs beside those in feedback/: a file or a folder"},
            {"name": "review", "long": "review", "type": bool, "default": False, "help": "accept, edit or reject one after the other"},
        ],
    )


def task_voice():
    """Speak with the finished model, through microphone and loudspeaker or files (--audio question.wav --out answer.wav)"""
    for name, recipe in PROJECT.recipes.items():
        yield task(
            "voice",
            name,
            f"Speak with {recipe['deploy']['name']}",
            partial(talking.voice, PROJECT, PATHS, name),
            always=True,
            params=[
                {"name": "audio", "long": "audio", "default": "", "help": "a question in a sound file, instead of the microphone"},
                {"name": "out", "long": "out", "default": "", "help": "a WAV file for the answer, instead of the loudspeaker"},
                {"name": "language", "long": "language", "default": "", "help": "tr or en, where the question's is known"},
                {"name": "whisper", "long": "whisper", "default": "small", "help": "Whisper's model: a name, or a folder that has it"},
                {"name": "voices", "long": "voice", "type": list, "default": [], "help": "a Piper voice, NAME.onnx; once for each language"},
            ],
        )


def task_verify():
    """Render samples, dataset and Modelfiles anew and check every hash of the lock; name the first difference"""
    return task(
        "verify",
        None,
        task_verify.__doc__,
        partial(release.verify, PROJECT, PATHS),
        always=True,
        params=[{"name": "name", "long": "recipe", "default": DEFAULT, "help": "the recipe that is verified"}],
    )


def task_new_persona():
    """Make a second project with a small persona of its own, ready to be built (--name NAME, --into FOLDER)"""
    return task(
        "new-persona",
        None,
        task_new_persona.__doc__,
        partial(authoring.new_persona, PROJECT, PATHS),
        always=True,
        params=[
            {"name": "name", "long": "name", "default": "", "help": "lower-case letters, digits and '-'"},
            {"name": "into", "long": "into", "default": "", "help": "the folder that is made; beside this one, by its name, when left out"},
        ],
    )


def task_schemas():
    """Write the JSON Schemas for editors and the spec reference page, from the one schema that specs are checked by"""
    return task("schemas", None, task_schemas.__doc__, partial(authoring.schemas, PATHS), always=True)


def task_docs():
    """Write docs/*.md from their templates and the figures of the last builds (--figures: take those anew; --terminal: the guide's output)"""
    return task(
        "docs",
        None,
        task_docs.__doc__,
        partial(authoring.docs, PROJECT, PATHS),
        always=True,
        params=[
            {"name": "figures", "long": "figures", "type": bool, "default": False, "help": "from the default recipe's build and the benchmarks"},
            {"name": "terminal", "long": "terminal", "type": bool, "default": False, "help": "type the guide's commands, which takes minutes"},
        ],
    )
