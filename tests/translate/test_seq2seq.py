"""Translation models give what the transformers library gives for one text at a time, with the right languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_xling.errors import MissingExtraError, TranslationError
from recbole_xling.language.model_codes import FLORES, lookup, unusual_script
from recbole_xling.translate import Translator, create_translator

TEXTS = ["der pate", "hai", "ein film am strand", "ein hai am strand der film", "pate"]


def translator(folder: Path, **options: object) -> Translator:
    return create_translator(str(folder), **{"max_length": 40, "num_beams": 2, "device": "cpu", **options})


def reference(folder: Path, texts: list[str], first_token: str | None = None, source_code: str | None = None):
    """The library's own steps, text by text."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    if source_code is not None:
        tokenizer.src_lang = source_code
    forced = {} if first_token is None else {"forced_bos_token_id": tokenizer.convert_tokens_to_ids(first_token)}
    results = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                num_beams=2,
                max_length=40,
                do_sample=False,
                **forced,
            )
        results.append(tokenizer.decode(output[0], skip_special_tokens=True).strip())
    return results


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_nllb_translates_like_transformers_in_any_batch_size(nllb_folder: Path, batch_size: int) -> None:
    made = translator(nllb_folder, batch_size=batch_size).translate(TEXTS, "de", "es")
    assert made == reference(nllb_folder, TEXTS, "spa_Latn", "deu_Latn")
    assert len(set(made)) > 1


def test_nllb_heeds_source_and_target(nllb_folder: Path) -> None:
    system = translator(nllb_folder)
    made = [system.translate(TEXTS, *pair) for pair in [("de", "es"), ("en", "es"), ("de", "zh-Hant-TW")]]
    assert made[0] != made[1] and made[0] != made[2]
    assert made[1] == reference(nllb_folder, TEXTS, "spa_Latn", "eng_Latn")
    assert made[2] == reference(nllb_folder, TEXTS, "zho_Hant", "deu_Latn")


def test_m2m100_translates_like_transformers(m2m100_folder: Path) -> None:
    made = translator(m2m100_folder, batch_size=2).translate(TEXTS, "de-AT", "nb")
    assert made == reference(m2m100_folder, TEXTS, "__no__", "de")


def test_marian_translates_its_pair_only(marian_folder: Path) -> None:
    system = translator(marian_folder, batch_size=2)
    assert system.name == "opus-mt-de-es"
    assert system.translate(TEXTS, "de", "es-MX") == reference(marian_folder, TEXTS)
    with pytest.raises(TranslationError, match="translates from de, not from en"):
        system.check_pairs([("de", "es"), ("en", "es")])
    with pytest.raises(TranslationError, match="translates into es, not into fr"):
        system.check_pairs([("de", "fr")])


def test_marian_with_several_targets_names_the_target(marian_group_folder: Path) -> None:
    system = translator(marian_group_folder)
    for target, label in [("es", ">>es<<"), ("fr", ">>fra<<")]:
        named = [f"{label} {text}" for text in TEXTS]
        assert system.translate(TEXTS, "de", target) == reference(marian_group_folder, named)
    with pytest.raises(TranslationError, match="does not translate into it, only into >>es<< >>fra<<"):
        system.check_pairs([("de", "it")])
    translator(marian_group_folder, codes={"it": "es"}).check_pairs([("de", "it")])


def test_a_language_the_model_does_not_know_is_named(nllb_folder: Path) -> None:
    with pytest.raises(TranslationError, match=r"does not know the language fr \(as fra_Latn or fr\)"):
        translator(nllb_folder).check_pairs([("de", "fr")])
    translator(nllb_folder, codes={"fr": "spa_Latn"}).check_pairs([("de", "fr")])
    with pytest.raises(TranslationError, match="as xyz_Latn"):
        translator(nllb_folder, codes={"de": "xyz_Latn"}).check_pairs([("de", "es")])


def test_texts_and_translations_that_reach_max_length_are_counted(
    nllb_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(translator(nllb_folder, max_length=8).translate(["hai"], "de", "es")) == 1
    assert "1 texts or translations fill max_length=8" in caplog.text
    caplog.clear()
    assert len(translator(nllb_folder).translate(["hai am strand " * 9], "de", "es")) == 1
    assert "1 texts or translations fill max_length=40" in caplog.text


def test_a_script_that_the_model_does_not_write_is_refused(
    nllb_folder: Path, m2m100_folder: Path, marian_folder: Path, marian_group_folder: Path
) -> None:
    for folder in (nllb_folder, m2m100_folder, marian_folder, marian_group_folder):
        with pytest.raises(TranslationError, match=r"es-Arab.*codes=\{'es-Arab'"):
            translator(folder).check_pairs([("de", "es-Arab")])
    translator(nllb_folder, codes={"es-Arab": "spa_Latn"}).check_pairs([("de", "es-Arab")])
    with pytest.raises(TranslationError, match="es-Arab but spa_Latn"):
        translator(nllb_folder, codes={"es": "spa_Latn"}).check_pairs([("de", "es-Arab")])
    translator(nllb_folder).check_pairs([("de", "zh-Hant"), ("de", "es-Latn"), ("de", "es-MX")])
    scripts = {
        tag: unusual_script(tag) for tag in ("sr", "sr-Latn", "zh-TW", "zh-Hans", "ko", "yue", "sr-Cyrl-RS", "en-v2")
    }
    assert scripts == {**dict.fromkeys(scripts), "sr-Latn": "Latn", "zh-TW": "Hant"}


def test_a_max_length_beyond_the_models_positions_is_refused(marian_folder: Path) -> None:
    with pytest.raises(TranslationError, match="lower max_length=500"):
        translator(marian_folder, max_length=500).translate(["hai " * 400], "de", "es")


def test_identity_of_a_translator_follows_what_changes_the_translations(nllb_folder: Path, marian_folder: Path) -> None:
    changed = [{}, {"num_beams": 1}, {"max_length": 9}, {"dtype": "bfloat16"}, {"codes": {"x": "y"}}]
    identities = [translator(nllb_folder, **options).identity for options in changed]
    assert len({str(identity) for identity in [*identities, translator(marian_folder).identity]}) == 6
    assert translator(nllb_folder, batch_size=3, name="n").identity == identities[0]


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.T5Config().save_pretrained(tmp_path)
    with pytest.raises(TranslationError, match=r"unknown family of translation models 't5'.*m2m_100, marian"):
        translator(tmp_path).check_pairs([("de", "es")])


def test_a_broken_model_folder_or_option_is_refused(tmp_path: Path, nllb_folder: Path) -> None:
    with pytest.raises(TranslationError, match="does not contain a model"):
        translator(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TranslationError, match="cannot load the model"):
        translator(tmp_path).check_pairs([("de", "es")])
    with pytest.raises(TranslationError, match="'batch_size' is 0"):
        translator(nllb_folder, batch_size=0)
    with pytest.raises(TranslationError, match="Did you mean 'float16'"):
        translator(nllb_folder, dtype="float61")


def test_a_missing_package_names_the_extra(nllb_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"transformers.*recbole-xling\[translate\]"):
        translator(nllb_folder)


def test_flores_codes_cover_all_languages_of_nllb() -> None:
    pytest.importorskip("transformers")
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    assert set(FLORES.values()) == set(FAIRSEQ_LANGUAGE_CODES)


@pytest.mark.parametrize(
    ("tag", "code"),
    [("de", "deu_Latn"), ("DE-at", "deu_Latn"), ("zh", "zho_Hans"), ("zh-Hant-HK", "zho_Hant"), ("zh-tw", "zho_Hant"),
     ("yue-Hant", "yue_Hant"), ("ar-EG", "arb_Arab"), ("sr-Latn", "srp_Cyrl"), ("xx", None), ("d", None)],
)  # fmt: skip
def test_a_model_code_is_looked_up_by_the_longest_prefix_of_a_tag(tag: str, code: str | None) -> None:
    assert lookup(FLORES, tag) == code
