"""The codes that translation systems use for languages: FLORES-200, M2M100 and ISO 639, by BCP 47 tag."""

from __future__ import annotations

from collections.abc import Mapping

from recbole_xling.errors import TranslationError

# BCP 47 tag and FLORES-200 code, the one NLLB uses: https://github.com/facebookresearch/flores/tree/main/flores200
_FLORES = """
ace ace_Latn  ace-Arab ace_Arab  acm acm_Arab  acq acq_Arab  aeb aeb_Arab  af afr_Latn  ajp ajp_Arab  ak aka_Latn
als als_Latn  am amh_Ethi  apc apc_Arab  ar arb_Arab  arb arb_Arab  ars ars_Arab  ary ary_Arab  arz arz_Arab
as asm_Beng  ast ast_Latn  awa awa_Deva  ay ayr_Latn  az azj_Latn  azb azb_Arab  azj azj_Latn  ba bak_Cyrl
ban ban_Latn  be bel_Cyrl  bem bem_Latn  bg bul_Cyrl  bho bho_Deva  bjn bjn_Latn  bjn-Arab bjn_Arab  bm bam_Latn
bn ben_Beng  bo bod_Tibt  bs bos_Latn  bug bug_Latn  ca cat_Latn  ceb ceb_Latn  cjk cjk_Latn  ckb ckb_Arab
cmn zho_Hans  cmn-Hant zho_Hant  crh crh_Latn  cs ces_Latn  cy cym_Latn  da dan_Latn  de deu_Latn  dik dik_Latn
dyu dyu_Latn  dz dzo_Tibt  ee ewe_Latn  el ell_Grek  en eng_Latn  eo epo_Latn  es spa_Latn  et est_Latn  eu eus_Latn
fa pes_Arab  ff fuv_Latn  fi fin_Latn  fil tgl_Latn  fj fij_Latn  fo fao_Latn  fon fon_Latn  fr fra_Latn
fur fur_Latn  ga gle_Latn  gd gla_Latn  gl glg_Latn  gn grn_Latn  gu guj_Gujr  ha hau_Latn  he heb_Hebr
hi hin_Deva  hne hne_Deva  hr hrv_Latn  ht hat_Latn  hu hun_Latn  hy hye_Armn  id ind_Latn  ig ibo_Latn
ilo ilo_Latn  is isl_Latn  it ita_Latn  ja jpn_Jpan  jv jav_Latn  ka kat_Geor  kab kab_Latn  kac kac_Latn
kam kam_Latn  kbp kbp_Latn  kea kea_Latn  kg kon_Latn  ki kik_Latn  kk kaz_Cyrl  km khm_Khmr  kmb kmb_Latn
kmr kmr_Latn  kn kan_Knda  ko kor_Hang  kr knc_Latn  kr-Arab knc_Arab  ks kas_Arab  ks-Deva kas_Deva  ku kmr_Latn
ky kir_Cyrl  lb ltz_Latn  lg lug_Latn  li lim_Latn  lij lij_Latn  lmo lmo_Latn  ln lin_Latn  lo lao_Laoo
lt lit_Latn  ltg ltg_Latn  lua lua_Latn  luo luo_Latn  lus lus_Latn  lv lvs_Latn  mag mag_Deva  mai mai_Deva
mg plt_Latn  mi mri_Latn  min min_Latn  mk mkd_Cyrl  ml mal_Mlym  mn khk_Cyrl  mni mni_Beng  mos mos_Latn
mr mar_Deva  ms zsm_Latn  mt mlt_Latn  my mya_Mymr  nb nob_Latn  ne npi_Deva  nl nld_Latn  nn nno_Latn  no nob_Latn
nso nso_Latn  nus nus_Latn  ny nya_Latn  oc oci_Latn  om gaz_Latn  or ory_Orya  pa pan_Guru  pag pag_Latn
pap pap_Latn  pl pol_Latn  prs prs_Arab  ps pbt_Arab  pt por_Latn  qu quy_Latn  rn run_Latn  ro ron_Latn
ru rus_Cyrl  rw kin_Latn  sa san_Deva  sat sat_Beng  sc srd_Latn  scn scn_Latn  sd snd_Arab  sg sag_Latn
shn shn_Mymr  si sin_Sinh  sk slk_Latn  sl slv_Latn  sm smo_Latn  sn sna_Latn  so som_Latn  sq als_Latn  sr srp_Cyrl
ss ssw_Latn  st sot_Latn  su sun_Latn  sv swe_Latn  sw swh_Latn  szl szl_Latn  ta tam_Taml  taq taq_Latn
taq-Tfng taq_Tfng  te tel_Telu  tg tgk_Cyrl  th tha_Thai  ti tir_Ethi  tk tuk_Latn  tl tgl_Latn  tn tsn_Latn
tpi tpi_Latn  tr tur_Latn  ts tso_Latn  tt tat_Cyrl  tum tum_Latn  tw twi_Latn  tzm tzm_Tfng  ug uig_Arab
uk ukr_Cyrl  umb umb_Latn  ur urd_Arab  uz uzn_Latn  vec vec_Latn  vi vie_Latn  war war_Latn  wo wol_Latn
xh xho_Latn  yi ydd_Hebr  yo yor_Latn  yue yue_Hant  zh zho_Hans  zh-Hant zho_Hant  zh-HK zho_Hant  zh-MO zho_Hant
zh-TW zho_Hant  zu zul_Latn
"""
_WORDS = _FLORES.split()
FLORES: Mapping[str, str] = dict(zip(_WORDS[::2], _WORDS[1::2], strict=True))
"""FLORES-200 code of BCP 47 tags."""

# if M2M100's code is not the tag's first part
_M2M100 = {"cmn": "zh", "fil": "tl", "nb": "no", "nn": "no", "nso": "ns"}


def lookup(codes: Mapping[str, str], tag: str) -> str | None:
    """Return the code of a tag or else of its beginning: ``zh-Hant-TW``, ``zh-Hant``, ``zh``.

    Source: RFC 4647, section 3.4.
    """
    lowered = {known.lower(): code for known, code in codes.items()}
    parts = tag.lower().split("-")
    beginnings = ("-".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((lowered[beginning] for beginning in beginnings if beginning in lowered), None)


def unusual_script(tag: str) -> str | None:
    """Return the script of a tag if it is not the usual one of its language: ``Hant`` of ``zh-TW``, None of ``sr``."""
    from langcodes import Language, tag_is_valid

    if not tag_is_valid(tag):
        return None
    full = Language.get(tag).maximize()
    is_usual = full.script == Language.get(full.language or tag).maximize().script
    return None if is_usual else full.script


def m2m100_code(tag: str) -> str:
    """Return M2M100's code of a tag; the model's vocabulary tells whether it knows that code."""
    language = tag.split("-")[0].lower()
    return _M2M100.get(language, language)


def iso_codes(tag: str) -> frozenset[str]:
    """Return the ISO 639 codes of a language: ``de`` and ``deu``, for Chinese ``zh`` and ``zho``."""
    code = lookup(FLORES, tag)
    return frozenset({tag.split("-")[0].lower(), *([] if code is None else [code[:3]])})


def is_iso_code(code: str) -> bool:
    """Tell whether a code is known as one language's, not a group's such as ``mul`` or ``ROMANCE``."""
    return code in FLORES or any(code == flores[:3] for flores in FLORES.values())


def check_codes(codes: object) -> dict[str, str]:
    """Return the option ``codes`` of a translator, tag to code, as a dictionary.

    Raises:
        TranslationError: it is not a dictionary of texts.
    """
    if codes is None:
        return {}
    if not isinstance(codes, Mapping) or not all(isinstance(word, str) for pair in codes.items() for word in pair):
        raise TranslationError(f"codes must be written like {{'es': 'spa'}}, language to the system's code: {codes!r}")
    return dict(codes)
