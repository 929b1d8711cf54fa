"""The encoding of a text file: what its mark says, else UTF-8, else those in which its words look like words.

A byte means something in nearly every encoding, so a wrong one does not fail: it gives other words. What tells is how
words are built: one script in a row, capitals in front, signs apart from letters. If several scripts are left, a person
has to say.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tabkit.data.dialect import opened
from tabkit.errors import DataError

LATIN = ("cp1252", "cp1250", "cp1254", "cp1257", "mac_roman", "cp850")
"""Encodings of one script, which differ in few letters. The first is by far the most common."""

OTHERS = ("cp932", "euc_jp", "gb18030", "big5", "cp949", "cp1251", "cp1253", "cp1255", "cp1256")

MOST_ODD = 0.1
"""Share of the words that may look like none: names and foreign words break every rule. Of more than four, one may."""

FEWEST_SIGNS = 20
"""Different signs of two bytes from which the narrowest code that holds them all is the one."""

_BLOCK_BYTES = 1 << 22
_MOST_WORDS = 2_000
_FEWEST_UTF8 = 8
_WORD = re.compile(rb"[^\x00-\x20,;|\"]{0,64}[\x80-\xff][^\x00-\x20,;|\"]{0,64}")
_LETTERS = re.compile(r"[^\W\d_]+")
_TONOS = re.compile("[άέήίόύώΐΰ]")
_INSIDE, _IN_NUMBERS = "’‘·", "’–·×年月"
_RARE = re.compile(r"[ýþðÿ]|[ìòù]\B|õ(?!e)|ñ(?![aeiouáéíóú])", re.I)
"""Letters of cp1252 where few of its languages have them, and the others of :data:`LATIN` have letters of many."""

_EVERYDAY = {
    "cp949": (0xB0, 0xC8, 0xA1),
    "euc_jp": (0xB0, 0xCF, 0xA1),
    "gb18030": (0xB0, 0xD7, 0xA1),
    "big5": (0xA4, 0xC6, 0x40),
    "cp932": (0x88, 0x97, 0x40),
}
"""First and last lead byte, and least trail byte, of everyday signs in codes of two bytes; narrow codes first."""

_MARKS = (  # the longer first: one of UTF-16 begins one of UTF-32
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)


@dataclass(frozen=True)
class Reading:
    """One way to read a file: an encoding, and the file's first words in it."""

    encoding: str
    words: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """What a person has to see to judge it."""
        return f"{self.encoding} ({', '.join(map(repr, self.words[:3]))})" if self.words else self.encoding


class EncodingError(DataError):
    """A CSV file is not in UTF-8, and no other encoding is stated; ``readings`` are those it could be in."""

    def __init__(self, what: str, readings: list[Reading]) -> None:
        advice = "fix or convert the file"
        if readings:
            one = (
                f'encoding = "{readings[0].encoding}"' if len(readings) == 1 else "the encoding in which it reads right"
            )
            advice = f"convert the file, or state {one} under [dialect] in the schema (of `tabkit new`: --encoding)"
        could = f" It could be {', '.join(r.shown for r in readings[:5])}." if len(readings) > 1 else ""
        super().__init__(f"{what}.{could} Expected UTF-8: {advice}.")
        self.readings = readings


def encoding_of(path: Path, stated: str | None = None) -> str:
    """Return the encoding that a byte-order mark says, else the one stated, else UTF-8, after checking the whole file.

    Raises
    ------
    EncodingError
        None is stated, and the file is not UTF-8.
    DataError
        Another is stated, and the file is UTF-8, or cannot be text in it.
    """
    with opened(path) as file:
        start = file.read(1 << 12)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if stated is not None and codecs.lookup(stated).name != "utf-8":
        _check_stated(path, stated)
        return stated
    if b"\0" in start:
        odd, even = start[1::2].count(b"\0"), start[::2].count(b"\0")
        if min(odd, even) > 0.1 * max(odd, even):
            raise DataError(f"{path} holds zero bytes, as no text does. Expected CSV: is it a file of another kind?")
        utf16 = "utf-16-le" if odd > even else "utf-16-be"
        raise EncodingError(f"{path} looks like {utf16.upper()} without a byte-order mark", [Reading(utf16)])
    if (broken := _broken_byte(path)) is not None:
        found = readings(path)
        reading = f" (in {found[0].encoding} it would read {broken.read(found[0])!r})" if len(found) == 1 else ""
        raise EncodingError(f"{path}, {broken.place} is not UTF-8{reading}", found)
    return "utf-8"


def chosen(found: list[Reading]) -> Reading | None:
    """Return the reading that ``tabkit new`` may state; None if a person must: none looks like text, or several scripts."""
    if len(found) == 1 and (found[0].encoding.startswith(("utf", LATIN[0])) or len(found[0].words) > 1):
        return found[0]
    western = bool(found) and found[0].encoding == LATIN[0] and all(r.encoding in LATIN for r in found)
    return found[0] if western and not _RARE.search(" ".join(found[0].words)) else None


def readings(path: Path) -> list[Reading]:
    """Return the ways to read a file that look like text, no two of the same words; the most common first.

    None if most of its words are UTF-8: such a file is damaged, and in no other encoding.
    """
    raw = _words(path)
    if 2 * sum(_decodes(word, "utf-8") for word in raw) > len(raw):
        return []
    found: list[Reading] = []
    for encoding in (*LATIN, *OTHERS):
        words = [word.decode(encoding, errors="replace") for word in raw]
        n_odd = sum(not _is_word(word, encoding) for word in words)
        # 84 886 with a no-break space tells little, however many there are.
        n_telling = sum(any(sign.isalpha() and ord(sign) > 0x7F for sign in word) for word in words) or len(words)
        plausible = n_odd <= max(n_telling > 4, MOST_ODD * n_telling)
        if plausible and all(words != list(r.words) for r in found) and _fits(path, encoding):
            found.append(Reading(encoding, tuple(words)))
    narrow = [r for code in _EVERYDAY for r in found if r.encoding == code]
    if narrow and len({sign for word in narrow[0].words for sign in word if ord(sign) > 0x7F}) >= FEWEST_SIGNS:
        return narrow[:1]
    # A lone °C is a Chinese sign too.
    lone = {byte for word in raw for byte in word if byte > 0x7F}
    if len(lone) < 4 and found and found[0].encoding in LATIN:
        return [r for r in found if r.encoding not in _EVERYDAY]
    return found


@dataclass(frozen=True)
class _Broken:
    """The first byte that is not UTF-8: where it is, and the bytes of its line around it."""

    place: str
    around: bytes

    def read(self, reading: Reading) -> str:
        return self.around.decode(reading.encoding, errors="replace")


def _broken_byte(path: Path) -> _Broken | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    n_lines = n_bytes = 0
    for block in _blocks(path):
        pending = decoder.getstate()[0]  # a character that the block before began
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as problem:
            text, at = pending + block, problem.start
            line = n_lines + text[:at].count(b"\n") + 1
            around = text[max(0, at - 12) : at].split(b"\n")[-1] + text[at : at + 8].split(b"\n")[0]
            offset = n_bytes - len(pending) + at
            return _Broken(f"line {line}: byte 0x{text[at]:02x} at offset {offset:,}", around)
        n_lines += block.count(b"\n")
        n_bytes += len(block)
    return None


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the file's bytes, an empty block last."""
    with opened(path) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
    yield b""


def _check_stated(path: Path, stated: str) -> None:
    """Refuse a file that cannot be in the encoding stated, or is UTF-8: every byte means something in cp1252."""
    if not _fits(path, stated):
        raise DataError(f"{path} is not in {stated}, which is stated. Expected {stated}: convert the file.")
    words = _words(path)
    least = 1 if stated not in _EVERYDAY else _FEWEST_UTF8
    if len(words) >= least and all(_decodes(word, "utf-8") for word in words):
        raise DataError(
            f"{path} is UTF-8 ({words[0].decode()!r}), and {stated} is stated, in which it would read "
            f"{words[0].decode(stated, errors='replace')!r}. Expected {stated}: convert the file."
        )


def _words(path: Path) -> list[bytes]:
    """Return the first different words with bytes beyond ASCII."""
    words: dict[bytes, None] = {}
    for block in _blocks(path):
        # The block's last line may go on in the next.
        whole = block.rsplit(b"\n", 1)[0] if len(block) == _BLOCK_BYTES else block
        words |= dict.fromkeys(word.group() for word in _WORD.finditer(whole))
        if len(words) > _MOST_WORDS:
            break
    return list(words)[:_MOST_WORDS]


def _fits(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in _blocks(path):
            decoder.decode(block, final=not block)
    except UnicodeDecodeError:
        return False
    return True


def _decodes(raw: bytes, encoding: str) -> bool:
    return "\ufffd" not in raw.decode(encoding, errors="replace")


def _is_word(word: str, encoding: str) -> bool:
    if "\ufffd" in word or any(unicodedata.category(sign)[0] == "C" for sign in word.replace("\u00ad", "")):
        return False
    if encoding in _EVERYDAY and not all(_is_everyday(sign, encoding) for sign in word):
        return False
    return _signs_stand_apart(word) and all(_is_run(run.group(), encoding) for run in _LETTERS.finditer(word))


def _is_everyday(sign: str, encoding: str) -> bool:
    """Tell whether a sign is of everyday use in a code of two bytes. Half-width kana are what cp1252's letters look like."""
    script = _script(sign)
    if script == "KANA":
        return not "\uff61" <= sign <= "\uff9f" and encoding in ("cp932", "euc_jp")
    if script in ("CJK", "HANGUL"):
        low, high, trail = _EVERYDAY[encoding]
        lead, *rest = sign.encode(encoding)
        return low <= lead <= high and rest[0] >= trail
    return bool(script) or ord(sign) <= 0x7F or unicodedata.category(sign)[0] in "PZN"


def _signs_stand_apart(word: str) -> bool:
    """Tell whether signs stand where signs do: not inside a word, not in a row, no money before a letter."""
    padded = f" {word} "
    for before, sign, after in zip(padded, padded[1:], padded[2:], strict=False):
        kind = unicodedata.category(sign)
        if ord(sign) > 0x7F and before.isdigit() and after.isdigit() and kind != "Zs" and sign not in _IN_NUMBERS:
            return False
        if ord(sign) <= 0x7F or (sign.isalpha() and sign not in "ªº"):
            continue
        if kind == "Mn":  # Hebrew and Arabic put marks under their letters
            if _script(before) not in ("HEBREW", "ARABIC") and unicodedata.category(before) != "Mn":
                return False
            continue
        inside = before.isalpha() and after.isalpha() and _script(before) not in ("CJK", "KANA", "HANGUL")
        in_a_row = kind[0] in "SN" and ord(after) > 0x7F and unicodedata.category(after)[0] in "SN"
        odd = (kind == "Sc" and after.isalpha()) or (kind == "Sk" and before.isalpha())
        if (inside and sign not in _INSIDE) or in_a_row or odd:
            return False
    return True


def _is_run(run: str, encoding: str) -> bool:
    """Tell whether letters in a row are of one script, with capitals in front or throughout."""
    scripts = {_script(letter) for letter in run}
    if scripts & {"CJK", "KANA", "HANGUL"}:
        return "LATIN" not in scripts or not any(c.islower() and ord(c) < 0x80 for c in run)
    if len(scripts) > 1:
        return False
    if not (run.islower() or run.isupper() or run[1:].islower() or scripts & {"HEBREW", "ARABIC"}):
        return False
    if scripts == {"LATIN"}:  # Москва in cp1252 is Ìîñêâà; Żółw has three marked letters in a row
        return not re.search(r"[^\x00-\x7f]{4}" if encoding == "cp1250" else r"[^\x00-\x7f]{3}", run)
    if scripts == {"GREEK"} and len(run) > 3 and not run.isupper():
        return len(_TONOS.findall(run.lower())) == 1 and "ς" not in run[:-1]
    return True


def _script(sign: str) -> str:
    """Return the script of a letter by its name; '' for anything else."""
    if not sign.isalpha():
        return ""
    name = unicodedata.name(sign, "").removeprefix("HALFWIDTH ").removeprefix("FULLWIDTH ")
    first = name.split(" ")[0].split("-")[0]
    if first in ("HIRAGANA", "KATAKANA"):
        return "KANA"
    return "LATIN" if first in ("FEMININE", "MASCULINE", "MICRO") else first
