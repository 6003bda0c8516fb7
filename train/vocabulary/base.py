"""The tokenizer to grow: which family it is of, and what its words are spelled and merged from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from tokenizers import Tokenizer

from malmoi.errors import RecipeError
from train.vocabulary.segmentation import NUM_CODES, Spelling

Family = Literal["sentencepiece", "byte-level"]
SPACE: Final = "▁"
"""How SentencePiece writes a space."""
FIRST_LETTER, LAST_LETTER = 0x3131, 0x318E
FIRST_SYLLABLE, LAST_SYLLABLE = 0xAC00, 0xD7A3


def is_hangul(character: str) -> bool:
    """Whether it is a syllable or a single letter."""
    code = ord(character)
    return FIRST_SYLLABLE <= code <= LAST_SYLLABLE or FIRST_LETTER <= code <= LAST_LETTER


def has_script(text: str) -> bool:
    """Whether the text holds Hangul."""
    return any(map(is_hangul, text))


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary.

    Source: GPT-2, encoder.py, bytes_to_unicode: printable Latin-1 stands for itself, the rest follow U+0100.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


HANGUL_PAIRS: Final = ((0xEA, range(0xB0, 0xC0)), (0xED, range(0x80, 0x9E)), (0xE3, (0x85,)))
"""First bytes and the second ones after which any third is Hangul."""
BYTES: Final = byte_alphabet()
BYTE_OF: Final = {character: byte for byte, character in enumerate(BYTES)}
BYTE_PIECES: Final = {f"<0x{byte:02X}>": byte for byte in range(256)}
"""How SentencePiece writes a byte."""


@dataclass(frozen=True)
class Base:
    """A tokenizer as its tokenizer.json has it."""

    state: Mapping[str, Any]
    """tokenizer.json."""
    family: Family
    piece_model: bytes | None = None
    """tokenizer.model, the SentencePiece model, where the base has one."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The fast tokenizer itself."""
        return Tokenizer.from_str(json.dumps(self.state))

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, special ones included, in the order of ids."""
        found = self.tokenizer.get_vocab(with_added_tokens=True)  # in another order in every process
        return dict(sorted(found.items(), key=lambda entry: entry[1]))

    @cached_property
    def num_ids(self) -> int:
        """One more than the greatest id: the first that is free."""
        return max(self.vocabulary.values()) + 1

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """The merge rules, the most urgent first."""
        return [
            tuple(pair if isinstance(pair, list) else pair.split(" ")) for pair in self.state["model"]["merges"]
        ]

    @property
    def takes_whole_words(self) -> bool:
        """Whether a word that is a token is taken whole before any rule is tried."""
        return bool(self.state["model"].get("ignore_merges"))

    def codes(self, token: str) -> list[int]:
        """How a token is spelled: code points, or bytes."""
        return (
            [BYTE_OF[character] for character in token]
            if self.is_bytes
            else [ord(character) for character in token]
        )

    def text(self, token: str) -> str | None:
        """The text a token stands for; None for a part of a character in a byte-level vocabulary."""
        if not self.is_bytes:
            return token.replace(SPACE, " ")
        try:
            return bytes(self.codes(token)).decode()
        except UnicodeDecodeError:
            return None

    def is_partial(self, token: str) -> bool:
        """Whether the token is a byte, or another part of a character, that is no text by itself."""
        return self.text(token) is None if self.is_bytes else token in BYTE_PIECES

    def token(self, text: str) -> str:
        """A text as the vocabulary writes it."""
        if not self.is_bytes:
            return text.replace(" ", SPACE)
        return "".join(BYTES[byte] for byte in text.encode())

    @property
    def is_bytes(self) -> bool:
        """Whether words are spelled in bytes rather than characters."""
        return self.family == "byte-level"

    def implies_script(self, token: str) -> bool:
        """Whether whatever text the token is a part of holds Hangul: one that does not would change English.

        Of bytes: whole characters, or the beginning of one, that only Hangul has. U+B000 to U+CFFF, which begin
        with EB and EC, are all syllables; of what begins with EA, ED and E3 the second byte decides.
        """
        if not self.is_bytes:
            return has_script(token)
        codes = self.codes(token)
        if not {0xEB, 0xEC}.isdisjoint(codes):
            return True
        pairs = set(pairwise(codes))
        if any((lead, low) in pairs for lead, lows in HANGUL_PAIRS for low in lows):
            return True
        return has_script(bytes(codes).decode(errors="ignore"))

    def spelling(self, universe: Mapping[str, int]) -> Spelling:
        """What each code is as a token of `universe` (token to number)."""
        tokens = np.full(NUM_CODES, -1, np.int32)
        byte_tokens = np.full(256, -1, np.int32)
        if self.is_bytes:
            tokens[:256] = [universe[character] for character in BYTES]
        else:
            byte_tokens[:] = [universe[piece] for piece in BYTE_PIECES]
            for token, number in universe.items():
                if len(token) == 1 and ord(token) < NUM_CODES:
                    tokens[ord(token)] = number
        return Spelling(tokens, byte_tokens, self.is_bytes)


def read_base(path: Path) -> Base:
    """The tokenizer in a checkpoint directory, or in a tokenizer.json, a SentencePiece model or a tekken.json.

    Raises: RecipeError for one of no family that can be grown.
    """
    if path.is_dir():
        model = path / "tokenizer.model"
        state = _read_json(path / "tokenizer.json") if (path / "tokenizer.json").exists() else None
        pieces = model.read_bytes() if model.exists() else None
    elif path.suffix == ".json":
        state, pieces = _read_json(path), None
        if "model" not in state and "vocab" in state:
            state = _from_tekken(path)
    else:
        state, pieces = None, path.read_bytes() if path.is_file() else None
    if state is None:
        if pieces is None:
            raise RecipeError(
                path,
                expected="tokenizer.json or tokenizer.model",
                found="neither",
                next_step="name a checkpoint directory or a tokenizer file",
            )
        state = from_pieces(pieces)
    return Base(state=state, family=_family(state, path), piece_model=pieces)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            path, expected="a tokenizer in JSON", found=str(error), next_step="check the path"
        ) from None
    return found


def _family(state: Mapping[str, Any], path: Path) -> Family:
    model = state.get("model", {})
    if model.get("type") == "BPE":
        if model.get("byte_fallback"):
            if BYTE_PIECES.keys() <= model["vocab"].keys():
                return "sentencepiece"
        elif set(BYTES) <= model["vocab"].keys() and '"ByteLevel"' in json.dumps(state.get("pre_tokenizer")):
            return "byte-level"
    raise RecipeError(
        path,
        expected="BPE with byte fallback (Llama 2) or byte-level BPE (Llama 3, GPT-NeoX)",
        found=f"{model.get('type')} without bytes" if model.get("type") == "BPE" else str(model.get("type")),
        next_step="only these can be grown so that every text stays encodable",
    )


def from_pieces(model: bytes) -> dict[str, Any]:
    """tokenizer.json for a SentencePiece BPE model; bos and eos are not added by themselves."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto
    from tokenizers import AddedToken, decoders, normalizers
    from tokenizers.models import BPE

    proto = ModelProto.FromString(model)
    prefix = proto.normalizer_spec.add_dummy_prefix
    pieces = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    scores = {
        piece.piece: piece.score for piece in proto.pieces if piece.type in (piece.NORMAL, piece.USER_DEFINED)
    }
    unk = proto.pieces[proto.trainer_spec.unk_id].piece
    merges = all_splits(sorted(scores, key=lambda piece: (-scores[piece], pieces[piece])), pieces)
    tokenizer = Tokenizer(BPE(pieces, merges, unk_token=unk, fuse_unk=True, byte_fallback=True))
    # As Llama 2 and Mistral ship it: a space before every text, also one that begins with a space, so that
    # nothing is lost when decoding takes one away.
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    special = [piece.piece for piece in proto.pieces if piece.type in (piece.CONTROL, piece.UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in special])
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    return state


def _from_tekken(path: Path) -> dict[str, Any]:
    """tokenizer.json for a tekken.json, by transformers' own conversion."""
    from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

    state: dict[str, Any] = json.loads(convert_tekken_tokenizer(str(path)).backend_tokenizer.to_str())
    return state


def all_splits(tokens: Sequence[str], numbers: Mapping[str, int]) -> list[tuple[str, str]]:
    """A merge rule for every way to cut each token into two that are there too; tokens in order of urgency.

    SentencePiece and tiktoken merge any two neighbours that make a token; a list of rules does the same only if
    it names them all. Among a token's own rules the order is by the parts' numbers.
    """
    rules = []
    for token in tokens:
        cuts = ((token[:place], token[place:]) for place in range(1, len(token)))
        found = [(left, right) for left, right in cuts if left in numbers and right in numbers]
        rules += sorted(found, key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))
    return rules
