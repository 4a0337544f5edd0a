"""Does an answer talk about answering instead of answering? In the shipped prompts' four languages.

A revision must be the answer itself. Small models announce it ("Here is the revised response:"),
go on criticising, speak of "this statement" as if the question were a text, or turn to the person
as a service desk would. What each pattern finds in real text is told in docs/pairs.md.

    talks_about_answering("Here is a kinder version: ...")      # True
"""

from __future__ import annotations

import re

from ccai_core.quality_measures import lowered


def _each(words: str, then: str) -> str:
    # As alternatives with a literal first: `re` passes such ones over without a look inside.
    return "|".join(rf"{word}{then}" for word in words.split())


# In lower case. Each stands at the beginning of a word; said once, as said in each it takes three
# times as long.
_ENGLISH = r"""
    revis(?:ed|ion) | rewrit(?:e|ten) | reword | rephras | critique
  | here(?:['’]s|\s+is|\s+are)\s+(?:the|a|an|my|your|some)\b[^.\n]{0,60}:
  | as\s+an?\s+(?:[\w-]+\s+)?(?:ai|chat\s?bot)\b | language\s+model
  | the\s+(?:user|prompt|assistant)\b
  | this\s+(?:text|passage|paragraph|essay|question|scenario)\b
  | try\s+again\b | answered\s+correctly | re-?explain | your\s+request\b
  # A text about the question, not an answer to it.
  | what\s+an?\s+(?:\w+\s+)?(?:question|story|message)\b
  | the\s+(?:correct|right)\s+(?:answer|sentence|response)\s+(?:is|was|would|should|could)\b
  | the\s+answer\s+(?:would\s+be|to\s+your|is\s*[:"“])
  # The voice of a service desk; "I'm glad you told me" is not.
  | i(?:['’]m|\s+am)\s+(?:so\s+)?glad\s+(?:that\s+)?you
    (?!\s+(?:told|reached|shared|said|spoke|wrote|came|have|are\s+(?:safe|here))|['’])
  | glad\s+you(?:['’]re|\s+are)\s+(?:enjoying|able|interested)\b
  | i(?:['’]m|\s+am)\s+(?:ready|here)\s+to\s+(?:help|assist)\b
  | how\s+(?:can|may)\s+i\s+(?:help|assist)\b
  | what\s+(?:else\s+)?(?:would\s+you\s+like\s+to\s+discuss|can\s+i\s+(?:ask|help))\b
"""
_ENGLISH_TOO = "|".join(
    (
        _each(
            "first previous original initial new updated improved above your my",
            r"\s+(?:answer|response|question|message|text|draft)s?\b",
        ),
        _each("four five two three", r"\s+(?:or\s+\w+\s+)?sentences"),
        _each(
            "this that",
            r"(?:\s+is|['’]s)\s+(?:a|an|another)\s+(?:\w+\s+){0,2}(?:example|answer|story)\b",
        ),
        _each(
            r"great excellent wonderful fantastic profound thoughtful very\s+good", r"\s+question\b"
        ),
        _each(
            "sorry apologi[sz]e",
            r"\s+for\s+(?:the|any)\s+(?:confusion|misunderstanding|inconvenience)",
        ),
        _each(
            r"feel\s+free do\s+not\s+hesitate don['’]t\s+hesitate",
            r"\s+to\s+(?:ask|share|contact|reach)\b",
        ),
    )
)
# Each stands at the beginning of a sentence.
_ENGLISH_SENTENCE = "|".join(
    (
        _each(
            "this that your",
            r"\s+(?:answer|statement|sentence|advice|response|message|phrase|phrasing|conversation"
            r"|quote|story|query|comment)\b",
        ),
        _each("this it", r"\s+(?:also\s+)?(?:highlights|emphasi[sz]es|underscores)\b"),
    )
)
_FRENCH = r"""
    voici\s+(?:la|ma|une|votre)\s+(?:\w+\s+){0,2}(?:réponse|version)\b
  | réponse\s+(?:révisée|précédente|améliorée|initiale|originale|corrigée)\b
  | votre\s+question\b | ta\s+question\b | cette\s+question\b
  | en\s+tant\s+qu['’]?\s*(?:ia|intelligence|assistant|modèle)\b | modèle\s+de\s+langage
"""
_CHINESE = (
    r"(?:修改|修订|改进|改写|更新)后的|以下是|(?:上面|之前|原来)的回答|"
    r"作为(?:一个)?(?:ai|人工智能|语言模型)"
)
_HINDI = r"संशोधित\s+(?:उत्तर|जवाब|संस्करण)|(?:एआई|ai)\s+(?:मॉडल|सहायक)|आपका\s+प्रश्न"
_AT_A_WORD = re.compile(rf"\b(?:{_ENGLISH}|{_ENGLISH_TOO}|{_FRENCH})", re.VERBOSE)
_FIRST = re.compile(_ENGLISH_SENTENCE, re.VERBOSE)
_AT_A_SENTENCE = re.compile(rf"""[.!?]["”’']?\s+(?:{_ENGLISH_SENTENCE})""", re.VERBOSE)
_ANYWHERE = re.compile(rf"{_CHINESE}|{_HINDI}")


def talks_about_answering(text: str) -> bool:
    """Whether a text speaks of answers, texts, or itself as an assistant."""
    text = lowered(text)
    return bool(
        _AT_A_WORD.search(text)
        or _FIRST.match(text)
        or _AT_A_SENTENCE.search(text)
        or (not text.isascii() and _ANYWHERE.search(text))
    )
