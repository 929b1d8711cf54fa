"""Text that is not UTF-8: read right, or asked for by name; over many encodings, and many or few words."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tabkit.data.encodings import EncodingError, chosen, encoding_of, readings
from tabkit.data.source import open_input
from tabkit.data.validate import read_table
from tabkit.draft import new
from tabkit.errors import DataError, UsageError
from tabkit.recipe import load_recipe
from tabkit.schema import Dialect

WORDS = {
    "German": ("cp1252", "Köln München Zürich Düsseldorf Nürnberg Straße Größe Gebühr Österreich Jürgen Schröder weiß Fläche"),
    "French": ("cp1252", "Orléans Sète Besançon Chambéry entrée résilié dépôt français élève Hélène prénom été Nîmes crédit"),
    "Spanish": ("cp1252", "Málaga Córdoba año señor España Muñoz teléfono dirección Peña Cádiz León niño Ibáñez Martínez"),
    "Portuguese": ("cp1252", "São Brasília Conceição João Gonçalves ação endereço município Maranhão Simões Guimarães não"),
    "Swedish": ("cp1252", "Malmö Göteborg Örebro Västerås Linköping Jönköping Åsa Björn Söderström kön län ålder"),
    "Danish": ("cp1252", "Århus Ålborg København Helsingør Næstved Køge Sønderborg Mølle Søren Jørgen Kærgård"),
    "Polish": ("cp1250", "Łódź Gdańsk Kraków Wrocław Częstochowa Poznań Białystok Rzeszów Toruń płeć wartość Żółkiewski"),
    "Czech": ("cp1250", "Plzeň Ústí Králové České Budějovice Děčín Jiří Dvořák Přemysl Žižkov příjmení město"),
    "Hungarian": ("cp1250", "Győr Pécs Székesfehérvár Nyíregyháza Kovács Szűcs Erdős Bíró Tóth összeg nő férfi"),
    "Turkish": ("cp1254", "İstanbul İzmir Eskişehir Şanlıurfa Muğla Çanakkale Diyarbakır Aydın müşteri yaş şehir değer"),
    "Russian": ("cp1251", "Москва Казань Омск Екатеринбург Новосибирск Самара Пермь имя возраст город Иван Ольга"),
    "Ukrainian": ("cp1251", "Київ Харків Львів Одеса Дніпро Запоріжжя Вінниця Чернігів місто вік Олексій Ірина"),
    "Greek": ("cp1253", "Αθήνα Πάτρα Λάρισα Θεσσαλονίκη Ηράκλειο Βόλος Ιωάννινα Καβάλα πόλη ηλικία Γιώργος Μαρία"),
    "Hebrew": ("cp1255", "ירושלים חיפה נתניה אשדוד באר שבע רמת אביב שם גיל עיר משה דוד"),
    "Arabic": ("cp1256", "القاهرة الجيزة الرياض جدة بغداد دمشق عمان بيروت المدينة الاسم العمر محمد"),
    "Japanese": ("cp932 euc_jp", "東京 大阪 カナダ りんご 値段 名古屋 さくら ひらがな 横浜 札幌 福岡 年齢 性別 田中 ラーメン"),
    "Kanji": ("cp932", "東京 大阪 名古屋 横浜 札幌 福岡 京都 神戸 広島 仙台"),
    "Chinese": ("gb18030", "北京 上海 广州 成都 武汉 西安 南京 重庆 王伟 李娜 产品 价格 性别 中国 收入 年龄 客户"),
    "Traditional": ("big5", "臺北 高雄 臺中 價格 姓名 年齡 性別 客戶 產品 新竹 嘉義 陳怡君 林志明"),
    "Korean": ("cp949", "서울 부산 대구 인천 광주 대전 울산 이름 나이 성별 고객 가격 김민수 박지영"),
    "Signs": ("cp1252", "21°C µm €5 £12 25€ “quoted” don’t café"),
}  # fmt: skip
SIZES = {"one": 1, "three": 3, "many": 99}

FOUND = {"German", "French", "Spanish", "Portuguese", "Swedish", "Danish", "Polish", "Russian", "Ukrainian", "Greek", "Arabic", "Japanese", "Chinese", "Traditional", "Korean"}  # fmt: skip
"""Read right from many words; the others are asked for."""


def text_of(words: list[str]) -> str:
    rows = [f"{words[i % len(words)]},{i % 17}.5,{'yes' if i // 7 % 2 else 'no'}" for i in range(90)]
    return "\n".join(["city,x,y", *rows]) + "\n"


def files(size: str) -> Iterator[tuple[str, str, str]]:
    """Yield language, encoding and text of files with so many different words."""
    for language, (encodings, words) in WORDS.items():
        for draw in range(3 if SIZES[size] < 99 else 1):
            names = random.Random(f"{language} {draw}").sample(words.split(), min(SIZES[size], len(words.split())))
            for encoding in encodings.split():
                if not (text := text_of(names)).isascii():
                    yield language, encoding, text


@pytest.mark.parametrize(("size", "most_wrong"), [("one", 1), ("three", 0), ("many", 0)])
def test_words_tell_the_encoding_or_it_is_asked_for(size: str, most_wrong: int, tmp_path: Path) -> None:
    fates: Counter[str] = Counter()
    for language, encoding, text in files(size):
        (path := tmp_path / "t.csv").write_bytes(text.encode(encoding))
        found = readings(path)
        right = [r for r in found if path.read_bytes().decode(r.encoding, errors="replace") == text]
        if (reading := chosen(found)) is None:
            assert right or size == "one", f"{language}: {encoding} is not among {[r.shown for r in found]}"
            assert size != "many" or language not in FOUND, f"{language}: asked for, {[r.shown for r in found]}"
            fates["asked"] += 1
        else:
            fates["right" if reading in right else "named beside another" if right else "wrong"] += 1
    assert fates["wrong"] <= most_wrong and fates["named beside another"] <= 2
    assert fates["right"] > fates["asked"] * (size != "one")


@pytest.mark.parametrize(
    ("language", "encoding"), [("German", "cp1252"), ("Chinese", "gb18030"), ("Russian", "cp1251")]
)
def test_the_encoding_found_is_named_and_stated(language: str, encoding: str, tmp_path: Path) -> None:
    words = WORDS[language][1].split()
    (path := tmp_path / "t.csv").write_bytes(text_of(words).encode(encoding))
    with pytest.raises(EncodingError, match=f'encoding = "{encoding}"|state the encoding'):
        open_input(path, Dialect())  # as scoring does: nothing is guessed there
    draft = new("test/case", path, "y", folder=tmp_path)
    plan = load_recipe(str(draft.recipe_path))
    assert plan.schema.dialect.encoding == encoding
    assert any(f"read as {encoding} ('{words[0]}'" in note and "--encoding" in note for note in draft.notes)
    assert set(read_table(plan, open_input(path, plan.schema.dialect), None).frame["city"]) == set(words)


def test_an_encoding_of_several_scripts_is_asked_for(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_bytes(text_of(["שם", "גיל"]).encode("cp1255"))
    with pytest.raises(DataError, match=r"line 2.*It could be .*cp1255 \('שם', 'גיל'\).*--encoding"):
        new("test/case", path, "y", folder=tmp_path)
    with pytest.raises(UsageError, match="--encoding 'hebrew1' is none that Python knows"):
        new("test/case", path, "y", encoding="hebrew1", folder=tmp_path)
    draft = new("test/case", path, "y", encoding="cp1255", folder=tmp_path)
    assert load_recipe(str(draft.recipe_path)).schema.dialect.encoding == "cp1255"


def test_latin_that_could_be_other_latin_names_both(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_bytes(text_of(["Sète", "Nîmes"]).encode("cp1252"))
    notes = new("test/case", path, "y", folder=tmp_path).notes
    assert any("read as cp1252 ('Sète', 'Nîmes')" in n and "could also be cp1250 ('Sčte', 'Nîmes')" in n for n in notes)


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman", "cp1251"])
def test_a_few_words_tell_among_many_amounts(encoding: str, tmp_path: Path) -> None:
    head = "цена;город;y\n" if encoding == "cp1251" else "chiffre;résilié;y\n"
    lines = [f"{i + 10}\u00a0{i + 100},5;{'oui' if i % 3 else 'non'};{i % 2}\n" for i in range(200)]
    (path := tmp_path / "t.csv").write_bytes((head + "".join(lines)).encode(encoding))
    assert readings(path)[0].encoding == encoding


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "utf-16"])
@pytest.mark.parametrize("language", ["German", "Chinese"])
def test_wide_characters_are_found_with_and_without_a_mark(language: str, encoding: str, tmp_path: Path) -> None:
    words = WORDS[language][1].split()
    (path := tmp_path / "t.csv").write_bytes(text_of(words).encode(encoding))
    draft = new("test/case", path, "y", folder=tmp_path)
    plan = load_recipe(str(draft.recipe_path))
    assert plan.schema.dialect.encoding == (encoding if encoding.endswith("e") else None)
    assert set(read_table(plan, open_input(path, plan.schema.dialect), None).frame["city"]) == set(words)


def test_a_damaged_utf8_file_is_taken_for_no_other_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("city,n\nKöln,1\nGießen,2\n".encode() + b"Bonn \xe9,3\n")
    with pytest.raises(DataError, match=r"line 4: byte 0xe9.*fix or convert the file"):
        new("test/case", tmp_path / "t.csv", "n", folder=tmp_path)
    (tmp_path / "t.csv").write_bytes(b"a,b\n\0\1\0\0,2\n")
    with pytest.raises(DataError, match="holds zero bytes"):
        open_input(tmp_path / "t.csv", Dialect())


@pytest.mark.parametrize("stated", ["cp1252", "cp932", "gb18030"])
def test_a_file_is_not_read_in_the_wrong_encoding_stated(stated: str, tmp_path: Path) -> None:
    text = text_of(WORDS["German"][1].split() + WORDS["French"][1].split())
    (path := tmp_path / "t.csv").write_bytes(text.encode())
    with pytest.raises(DataError, match=rf"t\.csv is UTF-8 \('Köln'\).*{stated} is stated|is not in {stated}"):
        open_input(path, Dialect(encoding=stated))
    path.write_bytes(text.encode("utf-8-sig"))
    assert encoding_of(path, stated) == "utf-8"  # the mark says so


def test_the_parts_of_a_folder_may_differ_in_encoding(tmp_path: Path) -> None:
    words = ["Köln", "東京"]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / f"{encoding}.csv").write_bytes(text_of(words).encode(encoding))
    frame = pl.concat([batch.frame for batch in open_input(tmp_path, Dialect()).batches(50)])
    assert set(frame["city"]) == set(words) and frame.height == 270
