"""The model card of a release: README.md, with the Hub's metadata in front."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from malmoi.checkpoint import Checkpoint
from malmoi.markdown import table
from malmoi.servable import why_not_served
from malmoi.signing import SIGNATURE_FILE
from quant.fidelity import FIDELITY_FILE, LANGUAGES, Fidelity, Language
from quant.gate import Gate, Row, shown
from quant.license import License

CODES: Final[Mapping[Language, str]] = {"korean": "ko", "english": "en"}
"""ISO 639-1, as the Hub names languages."""
METHODS: Final = {"gptq": "GPTQ", "bitsandbytes": "bitsandbytes"}
IN_HUBS_CACHE: Final = re.compile(r"models--([^/]+)--([^/]+)/snapshots/[^/]+$")
SUMS_FILE: Final = "SHA256SUMS"
HUBS_NOTES: Final = ".cache/huggingface"
"""What its client puts beside files that it downloads."""
SignedWith = Literal["key", "certificate"]
VERIFY_KEYS: Final[Mapping[SignedWith, str]] = {"key": "release.pub", "certificate": "authority.pem"}
"""What a card calls the file that a signature is verified with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a card tells of."""

    name: str
    """Of the release: the Hub's where it goes there, else its directory's."""
    export: Checkpoint
    base_model: str
    metadata: Mapping[str, Any]
    """In the parent's README.md."""
    license: License
    fidelity: Fidelity
    page: str
    """The check's page, in Markdown, under a title of its own."""
    gate: Gate
    rows: Sequence[Row]
    signed_with: SignedWith | None


def base_model_of(parent: Path) -> str:
    """The Hub's id of a checkpoint in its cache; of others the directory's name."""
    found = IN_HUBS_CACHE.search(parent.absolute().as_posix())
    return f"{found[1]}/{found[2]}" if found else parent.resolve().name


def compose(facts: Facts) -> str:
    """README.md."""
    parts = [
        f"---\n{_front(facts)}\n---",
        f"# {facts.name}",
        _opening(facts),
        "## How far it is from its parent",
        *_fidelity(facts),
        "## Fertility",
        *_fertility(facts.fidelity),
        "## How to serve it",
        *_serving(facts),
        "## License",
        facts.license.told,
        "## How it was made",
        *_making(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front(facts: Facts) -> str:
    from huggingface_hub import ModelCardData

    method = facts.fidelity.method
    bits = _bits(facts.fidelity)
    tags = [method, *([f"{bits}-bit"] if bits else []), "malmoi", *([] if _refusal(facts) else ["vllm"])]
    data = ModelCardData(
        base_model=facts.base_model,
        base_model_relation="quantized",
        language=_languages(facts),
        library_name="transformers",
        license=facts.license.identifier,  # type: ignore[arg-type]  # the Hub takes a list, too
        license_name=facts.license.name,
        license_link=facts.license.link,
        pipeline_tag="text-generation",
        tags=tags,
    )
    return str(data.to_yaml())


def _languages(facts: Facts) -> list[str]:
    stated = facts.metadata.get("language")
    if stated is not None:
        names = stated if isinstance(stated, list) else [stated]
        return ["no" if name is False else str(name) for name in names]  # YAML's no is not Norwegian
    return [CODES[language] for language in LANGUAGES if facts.fidelity.text.get(language)]


def _bits(fidelity: Fidelity) -> int | None:
    if fidelity.settings.get("load_in_4bit"):
        return 4
    bits = fidelity.settings.get("bits")
    return bits if isinstance(bits, int) else None


def _refusal(facts: Facts) -> str | None:
    """Why vLLM does not serve it, on a GPU at least."""
    return why_not_served(facts.export, on_cpu=False)


def _opening(facts: Facts) -> str:
    fidelity, settings = facts.fidelity, facts.fidelity.settings
    if fidelity.method == "gptq":
        how = f"group size {settings['group_size']}, sym={json.dumps(settings.get('sym', True))}, "
        how += f"desc_act={json.dumps(settings.get('desc_act', False))}"
    else:
        how = f"{settings.get('bnb_4bit_quant_type')}, computing in {settings.get('bnb_4bit_compute_dtype')}, "
        how += "with" if settings.get("bnb_4bit_use_double_quant") else "without"
        how += " double quantization"
    bits = _bits(fidelity)
    return (
        f"`{facts.base_model}`, its linear layers quantized to {bits} bits with "
        f"{METHODS.get(fidelity.method, fidelity.method)} ({how}). Embeddings and output head are not. "
        "All numbers below were measured on the files beside this one and on those they were made from."
    )


def _fidelity(facts: Facts) -> list[str]:
    """The page that the check wrote, one level down, and what the gate made of it."""
    fidelity = facts.fidelity
    page = facts.page.partition("\n")[2].strip().replace("\n## ", "\n### ")
    parts: dict[str, object] = {
        f"{language.capitalize()} text": fidelity.text.get(language) for language in LANGUAGES
    }
    parts |= {"answers": fidelity.answers, "KoBEST": fidelity.kobest, "speed": fidelity.speed}
    missing = [name for name, found in parts.items() if not found]
    rows = [
        [row.name, shown(row.value), f"{row.bound} {shown(row.limit)}"]
        for row in facts.rows
        if row.value is not None
    ]
    return [
        page,
        *([f"Not measured: {', '.join(missing)}."] if missing else []),
        "### The gate that let it out",
        f"Sources of its thresholds: {facts.gate.source}. Assumed: {', '.join(facts.gate.assumed)}.",
        table(["", "measured", "threshold"], rows),
    ]


def _fertility(fidelity: Fidelity) -> list[str]:
    rows = [
        [
            language.capitalize(),
            f"{text.num_tokens / text.num_bytes:.3f}",
            f"{text.num_bytes / text.num_tokens:.2f}",
        ]
        for language, text in fidelity.text.items()
        if text is not None
    ]
    told = (
        "What the tokenizer, the parent's own, makes of the texts measured above. A Hangul syllable is 3 bytes."
    )
    return [told, table(["", "tokens per byte", "bytes per token"], rows)]


def _serving(facts: Facts) -> list[str]:
    """With vLLM, if it takes it, and with transformers."""
    verify = f" --verify-key {VERIFY_KEYS[facts.signed_with]}" if facts.signed_with else ""
    command = _code(f"malmoi-serve {facts.name}{verify}", "sh")
    told = _told_of_vllm(facts)
    load = "\n".join(
        f'{name} = {loader}.from_pretrained("{facts.name}"{options})'
        for name, loader, options in (
            ("tokenizer", "AutoTokenizer", ""),
            ("model", "AutoModelForCausalLM", ', device_map="auto"'),
        )
    )
    load = f"from transformers import AutoModelForCausalLM, AutoTokenizer\n\n{load}"
    parts = [told] if _refusal(facts) else [told, command]
    return [
        *parts,
        "With transformers, beside which `malmoi[quant]` brings what this needs:",
        _code(load, "python"),
    ]


def _told_of_vllm(facts: Facts) -> str:
    anywhere, on_cpu = _refusal(facts), why_not_served(facts.export, on_cpu=True)
    if anywhere is not None:
        return f"**vLLM 0.32 does not serve it**: it refuses {anywhere}."
    where = "on CPU and GPU" if on_cpu is None else f"on a GPU, **not on a CPU**, where it refuses {on_cpu}"
    plugin = ", with `vllm-bnb-plugin` beside it" if facts.fidelity.method == "bitsandbytes" else ""
    tried = "was served for" if facts.fidelity.speed else "has not been served for"
    return f"vLLM 0.32 serves such checkpoints {where}{plugin}. This one {tried} the numbers above."


def _making(facts: Facts) -> list[str]:
    provenance, fidelity = facts.export.provenance, facts.fidelity
    assert provenance is not None
    origin = provenance.origin
    libraries = dict(fidelity.libraries) | dict(origin.libraries)
    data = [[f"calibration, {name}", f"`{digest}`"] for name, digest in origin.data.items()]
    rows = [
        ["recipe", f"`{origin.recipe}`"],
        ["seed", f"{'none' if origin.seed is None else origin.seed}; {fidelity.seed} for the measurements"],
        ["parent", f"`{fidelity.parent}`"],
        ["export", f"`{fidelity.export}`"],
        *data,
        ["versions", ", ".join(f"{name} {version}" for name, version in libraries.items())],
    ]
    return [
        table(["", ""], rows),
        "Digests are SHA-256. `malmoi.json` has those of the tokenizer, the chat template and every file, "
        f"`{FIDELITY_FILE}` all that was measured. Whether every file is here as it was released: "
        f"`sha256sum -c {SUMS_FILE}`. {_told_of_signature(facts.signed_with)}",
    ]


def _told_of_signature(signed_with: SignedWith | None) -> str:
    if signed_with is None:
        return "Nobody signed this release."
    option, given = {
        "key": ("public_key", "the key that the publisher gives out"),
        "certificate": (
            "certificate_chain",
            "the certificates of the authority that vouches for the publisher",
        ),
    }[signed_with]
    command = f"model_signing verify {signed_with} . --signature {SIGNATURE_FILE} --allow_symlinks"
    command += f" --ignore-paths {HUBS_NOTES} --{option} {VERIFY_KEYS[signed_with]}"
    return f"Whether its publisher signed all of it: `{command}`, with {given}."


def _code(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
