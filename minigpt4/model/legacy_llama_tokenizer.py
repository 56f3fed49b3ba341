"""The tokenizer that the published weights were trained with: LLaMA's SentencePiece model, in its first behaviour.

`transformers` has changed how a LLaMA folder is read more than once. The published systems used the first way ("legacy"):
text after a special token begins with a new ``▁``, so that ``[INST]`` has the same ids alone and after ``<s>``. Later ways
give other ids, which the weights have never seen. `legacy_llama_tokenizer` builds the first way as a ``tokenizer.json``; to
use it needs nothing but `tokenizers`.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from ..errors import UserError

SPACE = "▁"
PAD_STRING = "$$"
"""What the published code names its pad token: a piece of some vocabularies, so that it also occurs in answers."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_UNK, _BOS, _EOS = "<unk>", "<s>", "</s>"


class LegacyLlamaTokenizer(PreTrainedTokenizerFast):
    """A fast tokenizer whose texts are those of SentencePiece.

    `tokenizers` turns a run of byte pieces that is not UTF-8 as a whole into replacement characters alone; SentencePiece
    keeps what is valid in it.
    """

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Pieces -> text. Special tokens are written out, with a blank where the published tokenizer has one."""
        special = set(self.all_special_tokens)
        text, pieces = "", list[str]()
        for i, token in enumerate(tokens):
            if token not in special:
                pieces.append(token)
                continue
            if i > 0 and tokens[i - 1] not in special:
                text += " "
            text += pieces_to_text(pieces) + token
            pieces = []
        return text + pieces_to_text(pieces)

    def _decode(self, token_ids: int | list[int], skip_special_tokens: bool = False, **kwargs: Any) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        skip = set(self.all_special_ids) if skip_special_tokens else set()
        tokens = (self._tokenizer.id_to_token(i) for i in ids if i not in skip)
        return self.convert_tokens_to_string([token for token in tokens if token is not None])


def pieces_to_text(pieces: Iterable[str]) -> str:
    """Pieces of a SentencePiece vocabulary -> text: the blank that begins every text is left out, bytes become characters."""
    text, run, begun = "", bytearray(), False
    for piece in pieces:
        if byte := _BYTE.fullmatch(piece):
            run.append(int(byte[1], 16))
            continue
        text, run = text + _characters(run), bytearray()
        if not begun and not text:
            piece = piece.removeprefix(SPACE)
        begun = True
        text += piece.replace(SPACE, " ")
    return text + _characters(run)


def _characters(run: bytearray) -> str:
    """UTF-8 -> text, with one replacement character for each byte that belongs to no character."""
    text, start = "", 0
    while start < len(run):
        for length in (1, 2, 3, 4):
            try:
                text += run[start : start + length].decode()
            except UnicodeDecodeError:
                continue
            start += length
            break
        else:
            text += "\N{REPLACEMENT CHARACTER}"
            start += 1
    return text


# building it --------------------------------------------------------------------------------------------------------


def legacy_llama_tokenizer(folder: Path) -> LegacyLlamaTokenizer:
    """The tokenizer of a LLaMA folder, from its ``tokenizer.model`` or, if there is none, its ``tokenizer.json``.

    Raises:
        UserError: no tokenizer in the folder, one that is no LLaMA tokenizer, or a pointer to a file that was not fetched.
    """
    model, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    if model.exists():
        vocabulary, merges = _read_sentencepiece(model)
    elif fast.exists():
        vocabulary, merges = _read_fast(fast)
    else:
        raise UserError(f"{folder}: no tokenizer.model (or tokenizer.json) in this folder")
    if [vocabulary.get(token) for token in (_UNK, _BOS, _EOS)] != [0, 1, 2]:
        raise UserError(f"{folder}: not a LLaMA tokenizer ({_UNK}, {_BOS} and {_EOS} are not its first three tokens)")
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=_UNK, fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1)]
    )
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (_UNK, _BOS, _EOS)])
    return LegacyLlamaTokenizer(
        tokenizer_object=backend,
        unk_token=_UNK,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_UNK,  # padding is masked: any id will do, and this one never stands for a piece of text
        add_bos_token=True,
        add_eos_token=False,
        clean_up_tokenization_spaces=False,
    )


def official_pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that the published code pads with: that of `PAD_STRING` where it is a piece, else that of unknown text."""
    found = tokenizer.get_vocab().get(PAD_STRING)
    return tokenizer.unk_token_id if found is None else found


def use_official_pad(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let `PAD_STRING` be the pad token, where it is a piece: as in the published code, answers then lose it when decoded."""
    if official_pad_id(tokenizer) != tokenizer.unk_token_id:
        tokenizer.pad_token = PAD_STRING


def _read_sentencepiece(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges, in SentencePiece's order of preference: the piece with the highest score first."""
    if file.read_bytes()[:8] == b"version ":
        raise UserError(f"{file}: only a Git LFS pointer, not the tokenizer; fetch the file itself (git lfs pull)")
    try:
        import sentencepiece
    except ImportError:
        raise UserError(f"{file}: to read it needs the package sentencepiece: pip install 'minigpt4[official]'") from None
    try:
        sp = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError) as error:
        raise UserError(f"{file}: not a SentencePiece model ({str(error).splitlines()[0]})") from error
    ids = range(sp.get_piece_size())
    vocabulary = {sp.id_to_piece(i): i for i in ids}
    plain = [i for i in ids if not (sp.is_control(i) or sp.is_unknown(i) or sp.is_byte(i) or sp.is_unused(i))]
    pieces = {sp.id_to_piece(i) for i in plain}
    merges = []
    for i in sorted(plain, key=sp.get_score, reverse=True):
        piece = sp.id_to_piece(i)
        splits = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        merges += sorted(
            (s for s in splits if s[0] in pieces and s[1] in pieces), key=lambda s: (vocabulary[s[0]], vocabulary[s[1]])
        )
    return vocabulary, merges


def _read_fast(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a converted tokenizer, whatever behaviour it was converted for."""
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        merges = [(left, right) for left, right in (m.split(" ") if isinstance(m, str) else m for m in model["merges"])]
        byte_fallback, vocabulary = model["byte_fallback"], model["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not the tokenizer.json of a LLaMA tokenizer ({error!r})") from error
    if not byte_fallback:
        raise UserError(f"{file}: not a LLaMA tokenizer (it has no byte pieces)")
    return vocabulary, merges
