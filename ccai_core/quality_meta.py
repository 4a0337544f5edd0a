"""Does an answer talk about answering instead of answering? In the shipped prompts' four languages.

A revision must be the answer itself. Small models announce it ("Here is the revised response:"),
go on criticising, speak of "this statement" as if the question were a text, or turn to the person
as a service desk would. What each pattern finds in real text is told in docs/pairs.md.

    talks_about_answering("Here is a kinder version: ...")      # True
"""

from __future__ import annotations

import re

# Each stands at the beginning of a word. (Said once: said in each, it takes three times as long.)
_ENGLISH = r"""
    (?:revis(?:ed|ion)|rewrit(?:e|ten)|reword|rephras|critique)
  | (?:first|previous|original|initial|new|updated|improved|above|your|my)\s+
    (?:answer|response|question|message|text|draft)s?\b
  | here(?:['’]s|\s+is|\s+are)\s+(?:the|a|an|my|your|some)\b[^.\n]{0,60}:
  | as\s+an?\s+(?:[\w-]+\s+)?(?:ai|chat\s?bot)\b | language\s+model
  | the\s+(?:user|prompt|assistant)\b
  | (?:four|five|two|three)\s+(?:or\s+\w+\s+)?sentences
  | this\s+(?:text|passage|paragraph|essay|question|scenario)\b
  | try\s+again\b | answered\s+correctly | re-?explain | your\s+request\b
  # A text about the question, not an answer to it.
  | (?:this|that)(?:\s+is|['’]s)\s+(?:a|an|another)\s+(?:\w+\s+){0,2}(?:example|answer|story)\b
  | what\s+an?\s+(?:\w+\s+)?(?:question|story|message)\b
  | (?:great|excellent|wonderful|fantastic|profound|thoughtful|very\s+good)\s+question\b
  | the\s+(?:correct|right)\s+(?:answer|sentence|response)\s+(?:is|was|would|should|could)\b
  | the\s+answer\s+(?:would\s+be|to\s+your|is\s*[:"“])
  # The voice of a service desk; "I'm glad you told me" is not.
  | (?:sorry|apologi[sz]e)\s+for\s+(?:the|any)\s+(?:confusion|misunderstanding|inconvenience)
  | i(?:['’]m|\s+am)\s+(?:so\s+)?glad\s+(?:that\s+)?you
    (?!\s+(?:told|reached|shared|said|spoke|wrote|came|have|are\s+(?:safe|here))|['’])
  | glad\s+you(?:['’]re|\s+are)\s+(?:enjoying|able|interested)\b
  | i(?:['’]m|\s+am)\s+(?:ready|here)\s+to\s+(?:help|assist)\b
  | how\s+(?:can|may)\s+i\s+(?:help|assist)\b
  | (?:feel\s+free|do\s+not\s+hesitate|don['’]t\s+hesitate)\s+to\s+(?:ask|share|contact|reach)\b
  | what\s+(?:else\s+)?(?:would\s+you\s+like\s+to\s+discuss|can\s+i\s+(?:ask|help))\b
"""
# Each stands at the beginning of a sentence.
_ENGLISH_SENTENCE = r"""
    (?:this|that|your)\s+
    (?:answer|statement|sentence|advice|response|message|phrase|phrasing|conversation|quote|story|
    query|comment)\b
  | (?:this|it)\s+(?:also\s+)?(?:highlights|emphasi[sz]es|underscores)\b
"""
_FRENCH = r"""
    voici\s+(?:la|ma|une|votre)\s+(?:\w+\s+){0,2}(?:réponse|version)\b
  | réponse\s+(?:révisée|précédente|améliorée|initiale|originale|corrigée)\b
  | (?:votre|ta|cette)\s+question\b
  | en\s+tant\s+qu['’]?\s*(?:ia|intelligence|assistant|modèle)\b | modèle\s+de\s+langage
"""
_CHINESE = (
    r"(?:修改|修订|改进|改写|更新)后的|以下是|(?:上面|之前|原来)的回答|"
    r"作为(?:一个)?(?:ai|人工智能|语言模型)"
)
_HINDI = r"संशोधित\s+(?:उत्तर|जवाब|संस्करण)|(?:एआई|ai)\s+(?:मॉडल|सहायक)|आपका\s+प्रश्न"
_META = re.compile(
    rf"""\b(?:{_ENGLISH}|{_FRENCH})|(?:^|[.!?]["”’']?\s+)(?:{_ENGLISH_SENTENCE})|{_CHINESE}|{_HINDI}""",
    re.IGNORECASE | re.VERBOSE,
)


def talks_about_answering(text: str) -> bool:
    """Whether a text speaks of answers, texts, or itself as an assistant."""
    return bool(_META.search(text))
