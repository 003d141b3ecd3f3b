"""From a recording of what a client really sent to its profile: a private `specs/clients/*.yaml`, kept in build/clients/.

What varies in the first request of a chain is the query. In the later ones, the query and the earlier answers are known, and so is their
place; what is left must be the same in all recordings. The proof is the way back: the profile is given the recorded queries and answers,
and must rebuild the recorded requests letter for letter.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from generators.capture_text import Unclear, aligned, alike, escaped, has_frame, loosely_matched, matched
from generators.clients import Client, Observation, Unparsable, parse_answer, stage_prompt
from generators.errors import SpecErrors, UserError, did_you_mean, one_of
from generators.files import to_json, write_text
from generators.templates import render_text

Say = Callable[[str], None]
Pattern = tuple[str, ...]  # the constants around a query, which stands between them each time
ENOUGH_QUERIES = 3  # with fewer, what two queries happen to share cannot be told from what the client adds
ENOUGH_REBUILT = 0.98
_MOST_OPEN = 8  # chains that a request may go on with: several programs may have been recorded side by side
# Stand-ins for what is known of a request; no client sends characters of private use.
_QUERY, _TEXT, _CONFIDENCE, _LAYERS, _STAGE, _LISTED = "\ue000\ue001\ue002\ue003\ue004\ue005"
# How a client may spell what an observation holds, as Jinja over the profile's own values, the likeliest first.
_CONFIDENCES = ("{{ confidence }}", "{{ confidence | float }}", "{{ (confidence | float * 100) | round | int }}")
_LAYER_LISTS = ("{{ layers }}", "{{ layers | replace(',', ', ') }}", "{{ layers | replace(',', ' ') }}")


@dataclass(frozen=True)
class Exchange:
    """endpoint: `generate` or `chat`. ended: the client was answered to the end."""

    endpoint: str
    system: str
    prompt: str
    answer: str
    ended: bool


@dataclass
class Recording:
    """left_out: why requests are of no use here, and how many."""

    exchanges: list[Exchange] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class Captured:
    """profile: as a client's spec. used, rebuilt: requests. queries: different ones. stages: that were seen. doubts: for a person to read."""

    profile: Client
    used: int = 0
    rebuilt: int = 0
    queries: int = 0
    stages: int = 0
    doubts: list[str] = field(default_factory=list)

    @property
    def is_sure(self) -> bool:
        return self.queries >= ENOUGH_QUERIES and self.used > 0 and self.rebuilt >= ENOUGH_REBUILT * self.used


def capture(
    recording: Path | None,
    name: str,
    shipped: dict[str, Client],
    target: Callable[[str], Path],
    force: bool,
    accept: Callable[[], object],
    report: Say,
) -> Path:
    """Derive the profile of the client `name` (may be empty where there is one client), show it, and write it to `target(name)`.

    shipped: the clients of specs/. force: write a profile that is not sure, too. accept: raises SpecErrors when the project cannot be loaded
    with it; then what stood there before comes back. Raises UserError when nothing can be derived, or it is not sure.
    """
    if recording is None:
        raise UserError("there is no recording; run doit serve --record FILE, let the client ask, and give that file as --recording FILE")
    name = _chosen(name, shipped)
    recorded = read_recording(recording)
    found = derive(shipped[name], recorded.exchanges)
    text = as_yaml(found.profile)
    for line in text.splitlines():
        report(line)
    for line in told(found, recorded.left_out, shipped[name]):
        report(line)
    if not found.is_sure and not force:
        raise UserError("the profile is not sure enough to train on, and was not kept; record more queries, or keep it with --force")
    _write(target(name), text, accept)
    report(f"kept in {target(name)}, which git ignores; training and evaluation take it in place of specs/clients/{name}.yaml")
    report("delete the file to go back")
    return target(name)


def _chosen(name: str, shipped: dict[str, Client]) -> str:
    if not shipped:
        raise UserError("specs/clients/ holds no client; a capture completes one, so write its file first")
    if not name and len(shipped) == 1:
        return next(iter(shipped))
    if name not in shipped:
        said = f"no client {name!r}{did_you_mean(name, shipped)}" if name else "there are several clients; name one with --client"
        raise UserError(f"{said}; there are {one_of(shipped)}")
    return name


def _write(target: Path, text: str, accept: Callable[[], object]) -> None:
    before = target.read_text(encoding="utf-8") if target.is_file() else None
    write_text(target, text)
    try:
        accept()
    except SpecErrors as errors:
        if before is None:
            target.unlink()
        else:
            write_text(target, before)
        raise UserError(f"the profile was not kept, since the specs cannot be loaded with it: {errors}") from errors


# --- the recording ----------------------------------------------------------------------------------------------------------------


def read_recording(path: Path) -> Recording:
    """What `doit serve --record` kept. Raises UserError when there is no such file or nothing of use in it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); doit serve --record FILE writes one") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no recording: it is not UTF-8") from error
    found = Recording()
    latest: dict[tuple[str, str, str], Exchange] = {}
    for line in lines:
        exchange = _exchange(line)
        if isinstance(exchange, str):
            found.left_out[exchange] += 1
            continue
        if latest.pop(key := (exchange.endpoint, exchange.system, exchange.prompt), None):
            found.left_out["asked again with the same words"] += 1
        latest[key] = exchange
    found.exchanges = list(latest.values())
    if not found.exchanges:
        reasons = "; ".join(f"{count} {reason}" for reason, count in found.left_out.items()) or "it is empty"
        raise UserError(f"{path} holds no request to learn from: {reasons}")
    return found


def _exchange(line: str) -> Exchange | str:
    """A line of a recording, or why it is of no use."""
    try:
        row = json.loads(line)
        request, endpoint = row["request"], row["endpoint"]
        answer, ended = row["answer"], bool(row["ended"])
        if endpoint == "/api/generate":
            if request.get("raw"):
                return "raw, without a system prompt"
            return Exchange("generate", request.get("system") or "", request["prompt"], answer, ended)
        said = [(message["role"], _words(message["content"])) for message in request["messages"]]
        prompts = [content for role, content in said if role != "system"]
        if len(prompts) != 1:
            return "with a whole conversation in it; let the client start afresh for each query"
        return Exchange("chat", "\n\n".join(content for role, content in said if role == "system"), prompts[0], answer, ended)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "not readable"


def _words(content: Any) -> str:
    """Of a message; OpenAI's may come in parts."""
    return content if isinstance(content, str) else "\n\n".join(part["text"] for part in content)


# --- chains -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Chain:
    """The requests that one query led to. seen: what the client read in their answers; without text where it could read none."""

    query: str
    exchanges: list[Exchange]
    seen: list[Observation]


def first_requests(exchanges: Sequence[Exchange], client: Client) -> list[Exchange]:
    """Those that hold no answer to a request before them."""
    seen = [_read(client, exchange) for exchange in exchanges]
    return [
        exchange
        for number, exchange in enumerate(exchanges)
        if not any(_holds(exchange, exchanges[at], seen[at]) for at in range(max(0, number - _MOST_OPEN), number))
    ]


def _read(client: Client, exchange: Exchange) -> Observation:
    try:
        return parse_answer(client, exchange.answer)
    except Unparsable:
        return Observation("", 0.0)


def _holds(exchange: Exchange, earlier: Exchange, seen: Observation) -> bool:
    """Whether the answer to an earlier request is in this one, and was not in that one already."""
    return bool(seen.text) and exchange.prompt.count(seen.text) > earlier.prompt.count(seen.text)


def chains_of(exchanges: Iterable[Exchange], client: Client, patterns: Sequence[Pattern], doubts: list[str]) -> list[Chain]:
    """Every request at its stage. A request goes on with a chain when it holds its query and its last answer; else it must be a first one."""
    chains: list[Chain] = []
    for exchange in exchanges:
        prompt, seen = exchange.prompt.strip(), _read(client, exchange)
        chain = next((chain for chain in reversed(chains[-_MOST_OPEN:]) if _goes_on(chain, exchange, patterns)), None)
        query = next((value for pattern in patterns if (value := matched(pattern, prompt))), "")
        if chain is not None:
            chain.exchanges.append(exchange)
            chain.seen.append(seen)
        elif query:
            chains.append(Chain(query, [exchange], [seen]))
        elif any(loosely_matched(pattern, prompt) for pattern in patterns):
            doubts.append("requests with an earlier conversation in them are left out; let the client start afresh for each query")
        else:
            doubts.append(f"a request is like no other, and is left out: {_shown(prompt)}")
    return chains


def _goes_on(chain: Chain, exchange: Exchange, patterns: Sequence[Pattern]) -> bool:
    """A first request of another query may have the whole earlier conversation in it: its own query then ends what varies in it."""
    if chain.query not in exchange.prompt or not _holds(exchange, chain.exchanges[-1], chain.seen[-1]):
        return False
    varied = [value for pattern in patterns if (value := loosely_matched(pattern, exchange.prompt.strip()))]
    return all(value.startswith(chain.query) or value.endswith(chain.query) for value in varied)


# --- the profile ------------------------------------------------------------------------------------------------------------------


def derive(shipped: Client, exchanges: Sequence[Exchange]) -> Captured:
    """The shipped profile with all of it replaced that the recording shows. Raises UserError when it shows no first request."""
    found = Captured({**shipped, "endpoint": exchanges[0].endpoint})
    found.profile["systems"] = _systems(exchanges, found.doubts)
    patterns = list(_patterns([exchange.prompt.strip() for exchange in first_requests(exchanges, shipped)], found.doubts))
    if not patterns:
        reasons = "; ".join(found.doubts)
        raise UserError(f"what the client adds to a query cannot be told: {reasons}; record at least {ENOUGH_QUERIES} queries")
    first = {"name": shipped["stages"][0]["name"], "prompts": ["{{ query }}".join(map(escaped, pattern)) for pattern in patterns]}
    found.profile["stages"] = [first, *shipped["stages"][1:]]
    chains = chains_of(exchanges, shipped, patterns, found.doubts)
    _add_later_stages(found, chains)
    _count(found, chains)
    return found


def _systems(exchanges: Sequence[Exchange], doubts: list[str]) -> list[str]:
    counted = Counter(exchange.system.strip() for exchange in exchanges)
    if counted.pop("", 0):
        if not counted:
            raise UserError("the client sends no system prompt of its own; the Modelfile's holds, and the framing persona is the nearest to it")
        doubts.append("some requests came without a system prompt")
    constant = [system for system, count in counted.most_common() if count > 1 or len(counted) == 1]
    if not constant:
        constant = [counted.most_common()[0][0]]
        doubts.append(f"the system prompt is another in each of {len(counted)} requests; the first is taken")
    elif len(counted) > 1:
        doubts.append(f"there are {len(counted)} system prompts; {len(constant)} came more than once and are taken")
    return constant


def _patterns(prompts: list[str], doubts: list[str]) -> Iterator[Pattern]:
    """The constants around the query in first requests, those of the most common pattern first."""
    groups = alike(prompts)
    if len(groups) == len(prompts) > 1:  # no two are mostly alike: long queries in a short frame, or in none
        groups = [list(range(len(prompts)))]
        if not has_frame(prompts):
            yield "", ""
            return
    found: set[Pattern] = set()
    for group in sorted(groups, key=len, reverse=True):
        if len(group) == 1 and len(prompts) > 1:
            continue
        try:
            pattern = tuple(aligned([prompts[index] for index in group])[0])
        except Unclear as error:
            doubts.append(str(error))
            continue
        if pattern not in found:
            found.add(pattern)
            yield pattern


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:59] + "…")


# --- the later stages -------------------------------------------------------------------------------------------------------------


def _add_later_stages(found: Captured, chains: list[Chain]) -> None:
    """Each spelling of confidence and layers is tried, and the list as each stage has it; what rebuilds the most requests is right, and
    among such what finds more of an observation in its entry: answers that are all as sure rebuild it in any spelling."""
    found.stages = max((len(chain.exchanges) for chain in chains), default=0)
    if found.stages < 2:
        return
    best, base = (0, 0), found.profile
    for confidence, layers in product(_CONFIDENCES, _LAYER_LISTS):
        for profile in _with_later_stages(base, chains, found.stages, confidence, layers):
            score = sum(1 for _ in _rebuilt(profile, chains)), profile["observation"].count("{{")
            if score > best:
                best, found.profile = score, profile
    if found.profile is base:
        found.doubts.append("the later stages could not be told from the recording; the shipped ones stay")
        return
    listed = [seen for chain in chains for seen in chain.seen[: len(chain.exchanges) - 1]]
    if "confidence" not in found.profile["observation"] and len({seen.confidence for seen in listed}) == 1:
        found.doubts.append("all answers were as sure as each other, so whether the client lists their confidence cannot be told")
    most = max(len(seen.layers) for seen in listed)
    if most < 2 and ("layers" in found.profile["observation"]) == bool(most):
        unknown = "what stands between two of them" if most else "whether the client lists them"
        found.doubts.append(f"no answer named {'two layers' if most else 'layers'}, so {unknown} cannot be told")


def _with_later_stages(base: Client, chains: list[Chain], stages: int, confidence: str, layers: str) -> Iterator[Client]:
    """The profile with the list of earlier answers as each stage shows it; the last one shows the most of it."""
    skeletons = {stage: _skeletons(chains, stage, confidence, layers) for stage in range(1, stages)}
    names = [stage["name"] for stage in base["stages"]] + [f"stage {number + 1}" for number in range(len(base["stages"]), stages)]
    for found in reversed(skeletons.values()):
        listing = _listing(found.most_common(1)[0][0], names) if found else None
        if listing is None:
            continue
        profile = {**base, "observation": listing.as_jinja(confidence, layers), "separator": listing.separator}
        profile["stages"] = [dict(stage) for stage in base["stages"]]
        profile["stages"] += [{**profile["stages"][-1]} for _ in range(len(base["stages"]), stages)]
        for number, stage in enumerate(profile["stages"]):
            stage["name"] = listing.names[number]
        for number, told_apart in skeletons.items():
            wordings = list(_wordings(profile, chains, number, told_apart, listing))
            profile["stages"][number]["prompts"] = wordings or profile["stages"][number]["prompts"]
        yield profile


def _skeletons(chains: list[Chain], stage: int, confidence: str, layers: str) -> Counter[str]:
    """The requests of a stage with stand-ins for what is known, and how often each came. Where an observation has no layers, their place
    cannot be seen: such requests only count where there are no others."""
    here = [chain for chain in chains if len(chain.exchanges) > stage]
    whole = [chain for chain in here if all(seen.layers for seen in chain.seen[:stage])]
    return Counter(found for chain in whole or here if (found := _skeleton(chain, stage, confidence, layers)))


def _skeleton(chain: Chain, stage: int, confidence: str, layers: str) -> str:
    """Empty where an earlier answer is not in it."""
    text, seen = chain.exchanges[stage].prompt.strip(), chain.seen[:stage]
    known = sorted([(each.text, _TEXT) for each in seen] + [(chain.query, _QUERY)], key=lambda pair: -len(pair[0]))
    for words, stand_in in known:  # the longest first: a query may be part of an answer, and an answer of a query
        if not words or words not in text:
            return ""
        text = text.replace(words, stand_in) if stand_in == _QUERY else text.replace(words, stand_in, 1)
    for template, stand_in in ((confidence, _CONFIDENCE), (layers, _LAYERS)):
        values = [render_text(template, confidence=f"{each.confidence:.2f}", layers=",".join(each.layers)) for each in seen]
        text = _replaced_beside(text, values, stand_in, before=True) or _replaced_beside(text, values, stand_in, before=False) or text
    return text


def _replaced_beside(text: str, values: list[str], stand_in: str, before: bool) -> str:
    """Each value replaced where it stands nearest before its answer, or behind it, and not beyond the next one; empty where one does not."""
    parts = text.split(_TEXT)
    for number, value in enumerate(values):
        part = parts[number] if before else parts[number + 1]
        hits = list(re.finditer(rf"(?<![\w.]){re.escape(value)}(?![\w.]*\w)", part)) if value else []
        if not hits:
            return ""
        hit = hits[-1] if before else hits[0]
        parts[number + (not before)] = part[: hit.start()] + stand_in + part[hit.end() :]
    return _TEXT.join(parts)


@dataclass(frozen=True)
class Listing:
    """How earlier observations are listed. entry: one of them, with stand-ins. names: of the stages, as the listing calls them."""

    entry: str
    separator: str
    names: list[str]

    def of(self, stage: int) -> str:
        """The whole list before `stage`, as it stands in a skeleton."""
        return self.separator.join(self.entry.replace(_STAGE, self.names[number]) for number in range(stage))

    def as_jinja(self, confidence: str, layers: str) -> str:
        return _jinja(self.entry, {_TEXT: "{{ text }}", _CONFIDENCE: confidence, _LAYERS: layers, _STAGE: "{{ stage }}"})


def _jinja(skeleton: str, values: dict[str, str]) -> str:
    parts = re.split(f"([{''.join(values)}])", skeleton)
    return "".join(values.get(part) or escaped(part) for part in parts)


def _listing(skeleton: str, names: list[str]) -> Listing | None:
    places = [at for at, letter in enumerate(skeleton) if letter == _TEXT]
    head, after = skeleton[: places[0]], skeleton[places[-1] + 1 :]
    if len(places) == 1:
        return _only_entry(head, after, names)
    between = [skeleton[one + 1 : other] for one, other in zip(places, places[1:], strict=False)]
    numbers = [str(number + 1) for number in range(len(names))]
    for labels in (names, numbers):
        marked = _marked(head, between, labels)
        if marked is not None:
            return _entry(*marked, after, labels)
    return _entry(head, between[0], after, names) if len(set(between)) == 1 else None


def _marked(head: str, between: list[str], labels: list[str]) -> tuple[str, str] | None:
    """(what comes before the first answer, what stands between two) with a stand-in for the stage's label, where that makes all of
    what is between the same."""
    marked = {_last_replaced(text, labels[number + 1]) for number, text in enumerate(between)}
    first = _last_replaced(head, labels[0])
    return (first, marked.pop()) if len(marked) == 1 and _STAGE in first and all(_STAGE in text for text in marked) else None


def _last_replaced(text: str, label: str) -> str:
    hits = list(re.finditer(rf"(?<!\w){re.escape(label)}(?!\w)", text))
    return text if not hits else text[: hits[-1].start()] + _STAGE + text[hits[-1].end() :]


def _entry(head: str, between: str, after: str, names: list[str]) -> Listing:
    """What every answer has before it is what the head and the place between two answers end with alike; behind it, the same the other
    way round. White space at the ends is the separator's."""
    size = _common(reversed(head), reversed(between))
    before = between[len(between) - size :].lstrip()
    rest = between[: len(between) - len(before)]
    behind = rest[: _common(rest, after)].rstrip()
    return Listing(before + _TEXT + behind, rest[len(behind) :], names)


def _common(one: Iterable[str], other: Iterable[str]) -> int:
    """Letters that two texts begin with alike."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def _only_entry(head: str, after: str, names: list[str]) -> Listing:
    """With one answer listed, its entry is taken to be the lines that it and its confidence and layers stand on."""
    stand_ins = (_CONFIDENCE, _LAYERS)
    start = min([head.index(each) for each in stand_ins if each in head], default=len(head))
    start = head.rfind("\n", 0, start) + 1
    end = max([after.index(each) for each in stand_ins if each in after], default=0)
    behind = after[:end] + after[end:].split("\n", 1)[0]
    return Listing((_last_replaced(head[start:], names[0]) + _TEXT + behind).strip(), "\n", names)


def _wordings(profile: Client, chains: list[Chain], stage: int, skeletons: Counter[str], listing: Listing) -> Iterator[str]:
    """Prompts of a stage, the most common first; a further one only where it explains what those before it do not."""
    explained: list[str] = []
    for skeleton, _ in skeletons.most_common():
        if listing.of(stage) not in skeleton:
            continue
        prompt = _jinja(skeleton.replace(listing.of(stage), _LISTED, 1), {_QUERY: "{{ query }}", _LISTED: "{{ observations }}"})
        if any(stand_in in prompt for stand_in in (_TEXT, _CONFIDENCE, _LAYERS)):
            continue
        before, now = (_explains(profile, chains, stage, prompts) for prompts in (explained, [*explained, prompt]))
        if now > before + (1 if explained else 0):  # one request more may be chance
            explained.append(prompt)
    yield from explained


def _explains(profile: Client, chains: list[Chain], stage: int, prompts: list[str]) -> int:
    if not prompts:
        return 0
    stages = [dict(each) for each in profile["stages"]]
    stages[stage] = {**stages[stage], "prompts": prompts}
    return sum(1 for _, at in _rebuilt({**profile, "stages": stages}, chains, stage) if at == stage)


# --- the proof --------------------------------------------------------------------------------------------------------------------


def _rebuilt(profile: Client, chains: Iterable[Chain], only: int | None = None) -> Iterator[tuple[Chain, int]]:
    """(chain, stage) of every request that the profile gives letter for letter, white space around it aside. only: this stage."""
    for chain in chains:
        for stage in range(len(chain.exchanges)) if only is None else [only]:
            if stage < min(len(chain.exchanges), len(profile["stages"])) and _is_rebuilt(profile, chain, stage):
                yield chain, stage


def _is_rebuilt(profile: Client, chain: Chain, stage: int) -> bool:
    wanted, wordings = chain.exchanges[stage].prompt.strip(), len(profile["stages"][stage]["prompts"])
    return any(wanted == stage_prompt(profile, stage, chain.query, chain.seen[:stage], wording) for wording in range(wordings))


def _count(found: Captured, chains: list[Chain]) -> None:
    found.used = sum(len(chain.exchanges) for chain in chains)
    found.queries = len({chain.query for chain in chains})
    rebuilt = {(id(chain), stage) for chain, stage in _rebuilt(found.profile, chains)}
    found.rebuilt = len(rebuilt)
    missed = [(stage, exchange) for chain in chains for stage, exchange in enumerate(chain.exchanges) if (id(chain), stage) not in rebuilt]
    for stage, exchange in missed[:3]:
        found.doubts.append(f"not rebuilt, stage {stage + 1}: {_shown(exchange.prompt)}")
    if any("\n" in chain.query for chain in chains):
        found.doubts.append("some queries are of several lines; if a conversation stands in them, let the client start afresh for each query")
    if found.queries < ENOUGH_QUERIES:
        found.doubts.append(f"{found.queries} different queries are few; {ENOUGH_QUERIES} are the least, ten are good")


# --- what is shown ----------------------------------------------------------------------------------------------------------------


def told(found: Captured, left_out: Counter[str], shipped: Client) -> list[str]:
    """How sure the profile is, and why."""
    sure = "sure" if found.is_sure else "NOT SURE"
    lines = [f"{sure}: {found.rebuilt} of {found.used} requests, of {found.queries} queries, are rebuilt from it letter for letter"]
    unseen = [stage["name"] for stage in found.profile["stages"][found.stages :]]
    if unseen:
        lines.append(f"never asked: {one_of(unseen)}; the shipped words stay there. Harder queries go further")
    if found.stages > len(shipped["stages"]):
        lines.append(f"the client asked at {found.stages} stages, and the shipped profile has {len(shipped['stages'])}")
    lines += [f"{count} left out: {reason}" for reason, count in left_out.items()]
    return lines + list(dict.fromkeys(found.doubts))


def as_yaml(profile: Client) -> str:
    """As a spec file, with texts of several lines as they are."""
    from io import StringIO

    from ruamel.yaml import YAML

    out = StringIO()
    yaml = YAML()
    yaml.width = 140
    yaml.dump(_literal(profile), out)
    text = "# Captured from a recording: private, and never to be committed.\n" + out.getvalue()
    if YAML(typ="safe").load(text) == profile:
        return text
    return to_json(profile, indent=2) + "\n"  # characters that a block cannot hold; JSON is YAML too


def _literal(value: Any) -> Any:
    from ruamel.yaml.scalarstring import LiteralScalarString

    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_literal(item) for item in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value.strip() else value
